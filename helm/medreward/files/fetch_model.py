"""Brings a model's files into a folder, each checked against its sha256, or waits until they are there.

python fetch_model.py fetch FILES.json FOLDER
python fetch_model.py wait FILES.json FOLDER

FILES.json is a list of {"path", "url", "sha256"}. The folder appears when it is complete, and is never changed then: to
fetch the same files again downloads nothing, and to fetch other files into it fails.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path

CHUNK = 1024 * 1024
LIST = ".fetched.json"


def fetch(files: list[dict[str, str]], folder: Path) -> None:
    """Downloads the files beside the folder and then gives it its name; ends with a message where that fails."""
    if folder.exists():
        is_complete(files, folder)
        print(f"{folder} is complete: nothing to download", flush=True)
        return
    draft = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for file in files:
            target = draft / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = download(file["url"], target)
            if digest != file["sha256"]:
                sys.exit(f"{file['url']} has sha256 {digest}, not {file['sha256']}: nothing was installed")
            print(f"{file['path']}: {target.stat().st_size} bytes, digest right", flush=True)
        (draft / LIST).write_text(json.dumps(files))
        draft.rename(folder)
    except OSError as error:
        sys.exit(f"the model could not be downloaded: {error}")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def download(url: str, target: Path) -> str:
    """Writes what the URL has into the file and returns its sha256."""
    request = urllib.request.Request(url)  # noqa: S310  # the chart's schema lets http and https in alone
    if authorization := os.environ.get("DOWNLOAD_AUTHORIZATION"):
        request.add_unredirected_header("Authorization", authorization)  # it is not for whoever we are sent on to
    digest = hashlib.sha256()
    with urllib.request.urlopen(request, timeout=60) as reply, target.open("wb") as file:  # noqa: S310
        while chunk := reply.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def is_complete(files: list[dict[str, str]], folder: Path) -> None:
    """Ends with a message where the folder was made of other files."""
    listed = json.loads((folder / LIST).read_text()) if (folder / LIST).exists() else None
    if listed != files:
        sys.exit(f"{folder} holds other files than model.download.files: give the new model another model.ref")


def wait(files: list[dict[str, str]], folder: Path) -> None:
    """Returns when the folder is there."""
    while not folder.exists():
        time.sleep(2)
    is_complete(files, folder)


if __name__ == "__main__":
    verb, list_file, named = sys.argv[1:]
    {"fetch": fetch, "wait": wait}[verb](json.loads(Path(list_file).read_text()), Path(named))
