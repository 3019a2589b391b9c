"""A container of the chart, run as a process: its very command, with the paths of its mounts below a folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

from commands import CLEAN
from deploy.charts import Manifest


def run_container(
    manifests: list[Manifest],
    pod: Manifest,
    container: Manifest,
    root: Path,
    env: dict[str, str] | None = None,
    replacing: tuple[str, str] = ("", ""),
) -> subprocess.CompletedProcess[str]:
    """Runs the container's command and returns what became of it. `env` has what a secret would bring."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    places = {}
    for mount in container["volumeMounts"]:
        place = root / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        places[mount["mountPath"]] = str(place)
        if map_ := volumes[mount["name"]].get("configMap"):
            data = next(it["data"] for it in manifests if it["metadata"]["name"] == map_["name"])
            for name, text in data.items():
                (place / name).write_text(text)

    mounted = re.compile(f"(?:(?<=^)|(?<==))({'|'.join(sorted(places, reverse=True))})(?=/|$)")

    def here(word: str) -> str:
        word = word.replace(*replacing) if replacing[0] else word
        return mounted.sub(lambda found: places[found[1]], word).replace("$(POD_NAME)", "pod")

    listed = {it["name"]: here(it["value"]) for it in container.get("env", []) if "value" in it}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [here(word) for word in [*container["command"], *container.get("args", [])]]
    assert "$(" not in " ".join(command)
    return subprocess.run(
        command, capture_output=True, text=True, env={**CLEAN, **listed, **(env or {}), "PATH": path}, check=False
    )
