"""What was published, across restarts: `NAME/published` beside a policy's versions, in the form of sha256sum, so that
`sha256sum --check published` tells people the same."""

import logging
import re
from pathlib import Path
from typing import Final

from medreward.errors import ConfigurationError
from medreward.screening.policy import PolicyFile, digest_of

log = logging.getLogger(__name__)

LEDGER: Final = "published"
LINE: Final = re.compile(r"^([0-9a-f]{64})  (\S+)\.toml$", re.MULTILINE)


def published(folder: Path) -> dict[str, str]:
    """Returns the digest of each version that was ever current in this folder. Fails with a ConfigurationError where
    the file of one is there and has another digest, or cannot be read."""
    try:
        text = (folder / LEDGER).read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{folder / LEDGER} cannot be read: {error}") from None
    digests = {version: f"sha256:{digest}" for digest, version in reversed(LINE.findall(text))}  # the first one counts
    for version, digest in digests.items():
        file = folder / f"{version}.toml"
        if file.exists() and digest_of(file) != digest:
            raise ConfigurationError(
                f"{file} has changed since it was published: put the file back whose digest {folder / LEDGER} has, and "
                "give the change a new version"
            )
    return digests


def publish(folder: Path, file: PolicyFile) -> None:
    """Notes that this version is published. A folder that cannot be written, such as that of a ConfigMap, remembers
    nothing, which the log says."""
    try:
        with (folder / LEDGER).open("a", encoding="utf-8") as ledger:
            ledger.write(f"{file.digest.removeprefix('sha256:')}  {file.policy.version}.toml\n")
    except OSError as error:
        log.info(
            "nobody will notice after a restart if this version changes: its folder cannot be written",
            extra={"policy": file.policy.name, "version": file.policy.version, "reason": error.strerror},
        )
