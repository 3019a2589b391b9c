"""Runs a worker under another interpreter, which has a backend's library in an environment of its own.

It is run by its path. Of all that our own interpreter has installed, the other one is shown this package alone: it
takes every library, also those that both have, from its own environment.
"""

import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def main() -> None:
    package = Path(__file__).parents[2]
    spec = spec_from_file_location(package.name, package / "__init__.py", submodule_search_locations=[str(package)])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[package.name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[package.name])
        runpy.run_module(f"{package.name}.workers.device.child", run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        sys.exit(f"{sys.executable} has no module {error.name}, which a worker needs: see docs/vlm.md")


if __name__ == "__main__":
    main()
