"""Makes a manifest for a checkpoint that has none, in a process of its own, so that a server's front loads no torch."""

import json
import subprocess
import sys
from importlib import util
from pathlib import Path

from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.workers.process import end_with_the_front


def recognise(folder: Path, name: str, settings: Settings) -> tuple[str, list[str]]:
    """Returns the manifest's text and remarks on what will not be as in transformers; writes nothing.

    Fails with a ConfigurationError for a checkpoint that is not recognised, and where torch is not installed.
    """
    for package in ("torch", "transformers"):
        if not util.find_spec(package):
            raise ConfigurationError(f"{package} is not installed: pip install 'medreward[vlm]'")
    asked = (str(folder), name, settings.heads == "verbaliser", settings.image_size)
    return _here(*asked) if settings.isolation == "inline" else _apart(*asked)


def _here(folder: str, name: str, verbalise: bool, side: int | None) -> tuple[str, list[str]]:
    from medreward.backends.torch_vlm.adopt import make_manifest, plain_name  # loads torch

    adoption = make_manifest(Path(folder), plain_name(name), verbalise, side)
    return adoption.text, adoption.remarks


def _apart(*asked: str | bool | int | None) -> tuple[str, list[str]]:
    command = [sys.executable, "-m", __name__, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        refused, text, remarks = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = done.stderr.splitlines()[-1:]
        raise ConfigurationError(
            f"the process that read it ended with status {done.returncode}: {' '.join(said)}"
        ) from None
    if refused:
        raise ConfigurationError(refused)
    return text, remarks


def main() -> None:
    end_with_the_front()
    refused, text = "", ""
    remarks: list[str] = []
    try:
        text, remarks = _here(*json.loads(sys.argv[1]))
    except ConfigurationError as error:
        refused = str(error)
    sys.stdout.write(json.dumps([refused, text, remarks]))  # read by _apart


if __name__ == "__main__":
    main()
