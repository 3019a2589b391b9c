"""Images of deploy/Containerfile: built as a stranger would, on a bare Debian, and run as their user on a root that
nobody can write to.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from commands import ANY_PORTS, first_ready
from deploy.charts import ROOT
from traced import Room

CONTAINERFILE: Final = ROOT / "deploy" / "Containerfile"
SUITE, PYTHON = "bookworm", "3.11"
#: The targets, each with its lock.
LOCKS: Final = {"cpu": "serve", "bench": "bench", "vlm-cpu": "vlm", "gpu": "gpu"}
TORCH: Final = (ROOT / "deploy" / "locks" / "torch.txt").read_text().split()[-1]
#: Runs a command in the folder of an image, as user 10001, in which /cache alone can be written to. What stands on
#: the machine at $models is at /mnt.
INSIDE: Final = """
set -eu
root=$1 models=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/cache"
mount --bind /proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ "$models" ]; then mount --bind "$models" "$root/mnt"; mount -o remount,bind,ro "$root/mnt"; fi
exec chroot --userspec=10001:10001 --groups=10001 "$root" env --ignore-environment --chdir=/cache "$@"
"""


@dataclass(frozen=True)
class Image:
    target: str
    root: Path
    config: dict[str, Any]
    added: int  # bytes beyond its base

    def command(self, *words: str, models: Path | None = None) -> list[str]:
        """Returns what runs these words inside. `models` is a folder of this machine, which is at /mnt there."""
        inside = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(self.root), str(models or "")]
        return [*inside, *self.config["Env"], *words]

    def run(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout, check=False)

    @contextmanager
    def serving(
        self, room: Room, *flags: str, models: Path | None = None
    ) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """Gives the traced process of a server in the image, and its ports; it has stopped behind the block."""
        log = room.work / "serve.log"
        with log.open("w") as stderr:
            command = room.traced(*self.command("medreward", "serve", *ANY_PORTS, *flags, models=models))
            process = subprocess.Popen(command, stderr=stderr, text=True, process_group=0)
        try:
            yield process, first_ready(process, log)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


@dataclass(frozen=True)
class Workshop:
    """A store of images that holds a bare Debian, and a folder of wheels."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "Workshop":
        """Raises AssertionError where a program or a right is missing."""
        missing = [name for name in ("buildah", "debootstrap", "strace") if not shutil.which(name)]
        assert not missing, f"install {', '.join(missing)}: the image's tests build and watch it with them"
        assert os.geteuid() == 0, "run the image's tests as root: they mount what they build"
        shop = cls(folder)
        shop.wheels.mkdir()
        # A bare Debian is the base: it can be made wherever there is a mirror of Debian, without a registry of images.
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", packages, SUITE, shop.debian], stdout=2, check=True)
        bare = shop.buildah("from", "scratch")
        shop.buildah("add", "--quiet", bare, shop.debian, "/")
        shop.buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", bare)
        shop.buildah("commit", "--quiet", bare, "base")
        shop.buildah("rm", bare)
        return shop

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"

    @property
    def debian(self) -> Path:
        return self.folder / "debian"

    def buildah(self, *words: str | Path) -> str:
        store = ["buildah", f"--root={self.folder}/storage", f"--runroot={self.folder}/run"]
        done = subprocess.run([*store, *map(str, words)], capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    @contextmanager
    def built(self, target: str) -> Iterator[Image]:
        """Gives the image of a target; its container is gone behind the block."""
        self.download(target)
        own = self.folder / "Containerfile"
        own.write_text(only_stages(target))
        wheels = f"--volume={self.wheels}:/wheels:ro"
        arguments = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels", "BASE=localhost/base")
        build = ("build", "--isolation=chroot", "--format=docker", "--pull-never", wheels)
        given = [f"--build-arg={argument}" for argument in arguments]
        self.buildah(*build, *given, f"--target={target}", f"--tag={target}", f"--file={own}", ROOT)
        container = self.buildah("from", "--pull-never", target)
        root = Path(self.buildah("mount", container))
        config = json.loads(self.buildah("inspect", "--type=image", target))["Docker"]["config"]
        yield Image(target, root, config, size(root) - size(self.debian))
        self.buildah("umount", container)
        self.buildah("rm", container)

    def download(self, target: str) -> None:
        """Takes the wheels with this machine's pip, which knows where packages are to be had here."""
        locks = [f"--requirement={ROOT}/deploy/locks/{name}.txt" for name in ("image", LOCKS[target])]
        self._pip("--no-deps", "--require-hashes", *locks)
        if target == "gpu":
            # pip prefers a build with a local version, such as 2.13.0+cpu; the one for CUDA has none.
            for other in self.wheels.glob("torch-*+*.whl"):
                other.unlink()
            self._pip(TORCH.replace("==", "==="))
        elif target == "vlm-cpu":
            self._pip("--no-deps", TORCH)

    def _pip(self, *words: str) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        wheels = ["--only-binary=:all:", f"--python-version={PYTHON}", f"--dest={self.wheels}"]
        subprocess.run([*pip, *wheels, *words], check=True)

    def close(self) -> None:
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        shutil.rmtree(self.folder)


def only_stages(target: str) -> str:
    """Returns the Containerfile without the stages of other targets, which Debian's buildah would make as well."""
    head, *stages = re.split(r"^(?=FROM )", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    needed = {"build", "runtime", f"{target}-packages", target}
    return head + "".join(stage for stage in stages if stage.splitlines()[0].split()[-1] in needed)


def size(folder: Path) -> int:
    done = subprocess.run(["du", "-sxb", folder], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def processes() -> Iterator[tuple[int, str]]:
    """Yields user and program of each process of this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield folder.stat().st_uid, (folder / "cmdline").read_text().partition("\0")[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
