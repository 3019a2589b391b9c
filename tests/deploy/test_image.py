"""The CPU image: built as a stranger would, on a bare Debian, and run as its user on a root that nobody can write to.

`make image-test` runs it. It needs root, buildah and debootstrap, and downloads what the image is made of.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from commands import first_ready
from deploy.charts import CHART, ROOT
from traced import SPEAKING, Room

pytestmark = pytest.mark.image

CONTAINERFILE = ROOT / "deploy" / "Containerfile"
MEBIBYTE = 1024**2
#: What the CPU image may add to its base. docs/install.md states what it does add.
LARGEST = 450 * MEBIBYTE
SUITE, PYTHON = "bookworm", "3.11"
#: Runs a command in the folder of an image, as user 10001, in which /cache alone can be written to.
INSIDE = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/cache"
mount --bind /proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec=10001:10001 --groups=10001 "$root" env --ignore-environment --chdir=/cache "$@"
"""


@dataclass(frozen=True)
class Image:
    root: Path
    config: dict[str, Any]
    added: int  # bytes beyond its base

    def command(self, *words: str) -> list[str]:
        """Returns what runs these words inside."""
        inside = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(self.root)]
        return [*inside, *self.config["Env"], *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    missing = [name for name in ("buildah", "debootstrap", "strace") if not shutil.which(name)]
    assert not missing, f"install {', '.join(missing)}: the image's tests build and watch it with them"
    assert os.geteuid() == 0, "run the image's tests as root: they mount what they build"
    folder = tmp_path_factory.mktemp("image")
    download(folder / "wheels")
    store = ["buildah", f"--root={folder}/storage", f"--runroot={folder}/run"]

    def buildah(*words: str | Path) -> str:
        done = subprocess.run([*store, *map(str, words)], capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    # A bare Debian is the base: it can be made wherever there is a mirror of Debian, without a registry of images.
    debian = folder / "debian"
    packages = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", packages, SUITE, debian], stdout=2, check=True)
    bare = buildah("from", "scratch")
    buildah("add", "--quiet", bare, debian, "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", bare)
    buildah("commit", "--quiet", bare, "base")

    wheels = f"--volume={folder}/wheels:/wheels:ro"
    pip = ("--build-arg=PIP_NO_INDEX=1", "--build-arg=PIP_FIND_LINKS=/wheels")
    build = ("build", "--isolation=chroot", "--format=docker", "--pull-never", wheels, *pip)
    buildah(*build, "--build-arg=BASE=localhost/base", "--target=cpu", "--tag=cpu", f"--file={CONTAINERFILE}", ROOT)
    built = buildah("from", "--pull-never", "cpu")
    root = Path(buildah("mount", built))
    config = json.loads(buildah("inspect", "--type=image", "cpu"))["Docker"]["config"]
    yield Image(root, config, size(root) - size(debian))
    buildah("umount", built)
    buildah("rm", "--all")
    buildah("rmi", "--all", "--force")
    shutil.rmtree(folder)


def download(folder: Path) -> None:
    """Takes the wheels with this machine's pip, which knows where packages are to be had here."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    locks = [f"--requirement={ROOT}/deploy/locks/{name}.txt" for name in ("image", "serve")]
    wheels = ["--only-binary=:all:", f"--python-version={PYTHON}", f"--dest={folder}"]
    subprocess.run([*pip, "--require-hashes", *wheels, *locks], check=True)


def size(folder: Path) -> int:
    done = subprocess.run(["du", "-sxb", folder], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_it_says_what_it_is_and_who_runs_it(image: Image) -> None:
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["medreward"]
    assert config["Cmd"][0] == "serve"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "/opt/healthcheck.py"]
    assert {*config["ExposedPorts"]} == {"8000/tcp", "8001/tcp", "8002/tcp"}
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert labels["base.name"] == "localhost/base"


def test_it_is_small_and_nothing_in_it_builds(image: Image) -> None:
    assert image.added <= LARGEST, f"it adds {image.added / MEBIBYTE:.0f} MiB to its base"
    found = image.run("sh", "-c", "for it in cc gcc g++ clang ld as make pip pip3 git curl; do command -v $it; done; :")
    assert found.stdout == ""
    assert not (image.root / "src").exists()
    assert not (image.root / "build").exists()


def test_its_sbom_names_what_is_installed(image: Image) -> None:
    sbom = json.loads((image.root / "opt/medreward/medreward.cdx.json").read_text())
    named = {it["name"]: it["version"] for it in [*sbom["components"], sbom["metadata"]["component"]]}
    code = "from importlib.metadata import *; print(*{f'{it.name}=={it.version}' for it in distributions()}, sep='\\n')"
    installed = image.run("python", "-c", code).stdout.split()
    assert {same(f"{name}=={version}") for name, version in named.items()} == {same(it) for it in installed}
    lock = (ROOT / "deploy" / "locks" / "serve.txt").read_text()
    assert {*re.findall(r"^(\S+==\S+)(?: \\$)", lock, re.MULTILINE)} <= {same(it) for it in installed}


def same(requirement: str) -> str:
    """Returns the requirement as locks write it."""
    return re.sub(r"[-_.]+(?=.*==)", "-", requirement.lower())


def test_it_lets_nobody_in_by_itself(image: Image) -> None:
    done = image.run(*image.config["Entrypoint"], *image.config["Cmd"])
    assert done.returncode == 2
    assert "--keys-file" in done.stderr


@contextmanager
def serving(image: Image, room: Room) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    log = room.work / "serve.log"
    ports = ("--port=0", "--grpc-port=0", "--admin-port=0")
    with log.open("w") as stderr:
        command = room.traced(*image.command("medreward", "serve", *ports))
        process = subprocess.Popen(command, stderr=stderr, text=True, process_group=0)
    try:
        yield process, first_ready(process, log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_it_scores_its_golden_triples_and_speaks_to_nobody_else(image: Image, tmp_path: Path) -> None:
    room = Room(tmp_path / "room")
    with serving(image, room) as (process, ports):
        smoke = [sys.executable, str(CHART / "files" / "smoke.py"), "--model=medreward-mini", "--no-keys"]
        url = f"--url=http://127.0.0.1:{ports['port']}"
        scored = subprocess.run([*smoke, url], capture_output=True, text=True, timeout=120, check=False)
        assert scored.returncode == 0, scored
        assert scored.stdout.count("golden triple") > 0
        check = [f"MEDREWARD_PORT={ports['port']}", "python", "/opt/healthcheck.py"]
        assert image.run(*check).returncode == 0
        users = {user for user, word in processes() if word.startswith("/opt/medreward/bin/python")}
        assert users == {10001}
    assert process.returncode == 0
    assert image.run(*check).returncode != 0
    for line in (room.work / "serve.log").read_text().splitlines():
        json.loads(line)
    spoken = [stray for stray in room.strays() if stray.startswith(SPEAKING)]
    assert not spoken, spoken


def processes() -> Iterator[tuple[int, str]]:
    """Yields user and program of each process of this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield folder.stat().st_uid, (folder / "cmdline").read_text().partition("\0")[0]
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_its_root_cannot_be_written_to_and_its_cache_can(image: Image) -> None:
    assert image.run("sh", "-c", "echo > /cache/x").returncode == 0
    for place in ("/opt/medreward/x", "/tmp/x", "/x"):  # noqa: S108  # of the image
        assert "Read-only file system" in image.run("sh", "-c", f"echo > {place}").stderr
