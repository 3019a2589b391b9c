"""Programs beside Python that some tests run."""

import os
import shutil

import pytest


def installed(*names: str, package: str) -> str:
    """Returns the path of the first of these programs that there is. Without any, the test is skipped with the name of
    the Debian package to install; in CI, which installs them all, it fails."""
    for name in names:
        if path := shutil.which(name):
            return path
    missing = f"{names[0]} is not installed (on Debian: {package})"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)
