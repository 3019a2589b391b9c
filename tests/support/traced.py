"""Runs a command under strace, and says where it spoke beyond this machine and what it wrote outside its folders."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

from commands import ANY_PORTS, MEDREWARD, first_ready
from programs import installed

SPEAKING: Final = ("connect", "sendto", "sendmsg", "sendmmsg")
OPENING: Final = ("open", "openat", "openat2", "creat")
NAMING: Final = ("mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2")
LINKING: Final = ("link", "linkat", "symlink", "symlinkat")
UNFINISHED: Final = " <unfinished ...>"  # another thread's call came between its beginning and its end

FAMILY: Final = re.compile(r"sa_family=(\w+)")
WITHIN_THE_MACHINE: Final = {"AF_UNIX", "AF_NETLINK", "AF_UNSPEC"}
ADDRESS: Final = re.compile(r'sa_family=AF_INET6?, [^}]*?htons\((\d+)\)[^}]*?"([^"]+)"')
NAME_SERVICE: Final = {"53", "853", "5353", "5355"}  # ports; systemd-resolved and Docker listen for names on loopback
NAME_SERVICE_SOCKET: Final = re.compile(r'sun_path="[^"]*/(nscd|systemd/resolve|avahi-daemon)/[^"]*".* = 0$')
TO_WRITE: Final = re.compile(r"O_(WRONLY|RDWR|CREAT)")
OPENED: Final = re.compile(r" = \d+<(.+)>$")
NAMED: Final = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')


class Room:
    """All that a command is given: an empty home, a folder to work in, one for temporary files, and few variables.

    `CI` is not among them, nor any other variable that tells a library that nobody looks.
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        self.work, self.home, self.temporary = folder / "work", folder / "home", folder / "temporary"
        for part in (self.work, self.home, self.temporary):
            part.mkdir(parents=True)
        self.log = folder / "strace.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "USER": "somebody",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONDONTWRITEBYTECODE": "1",  # an editable install would be written into
        }

    def traced(self, *command: str | Path) -> list[str]:
        """The command under strace, which ends with the last process that the command started."""
        strace = installed("strace", package="strace")
        watched = ",".join(f"?{name}" for name in (*SPEAKING, *OPENING, *NAMING, *LINKING))  # ?: where there is such
        options = [
            "-f",
            "-y",
            "--seccomp-bpf",
            "-qq",
            "-o",
            str(self.log),
            "-e",
            "signal=none",
            "-e",
            f"trace={watched}",
        ]
        return [strace, *options, *map(str, command)]

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.traced(*command),
            capture_output=True,
            text=True,
            env=self.environment | variables,
            cwd=self.work,
            timeout=300,
            check=False,
        )

    def medreward(self, *words: str | Path) -> str:
        """What the command printed, which did what it should."""
        done = self.run(MEDREWARD, *words)
        assert done.returncode == 0, done
        return done.stdout

    @contextmanager
    def serving(self, *flags: str | Path) -> Iterator[dict[str, Any]]:
        """The ports of a server, which has ended behind the block with nothing but JSON lines on its stderr."""
        log = self.work / "serve.log"
        command = self.traced(MEDREWARD, "serve", *ANY_PORTS, *flags)
        with log.open("w") as stderr:
            process = subprocess.Popen(
                command, stderr=stderr, text=True, env=self.environment, cwd=self.work, process_group=0
            )
        try:
            yield first_ready(process, log)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # strace blocks it for itself, and ends as the server does
            code = process.wait(60)
        assert code == 0, log.read_text()
        for line in log.read_text().splitlines():
            json.loads(line)

    def assert_silent(self) -> None:
        strays = self.strays()
        assert not strays, "\n".join(["", *strays, f"(every call: {self.log})"])

    def strays(self) -> list[str]:
        """Calls that speak beyond loopback or ask for a name, files written elsewhere, and files left behind."""
        calls = list(_calls(self.log))
        assert calls, "strace saw nothing: may it trace here?"
        spoken = [call for call in calls if _speaks_beyond(call)]
        written = {path for call in calls if (path := self._written(call)) and not self._is_given(path)}
        left = {path for path in self.temporary.rglob("*") if path.is_file()}  # torch makes an empty folder there
        return spoken + sorted(map(str, written | left | {*self.home.iterdir()}))

    def _written(self, call: str) -> Path | None:
        name = call.partition("(")[0]
        if name in SPEAKING or " = -1 E" in call:
            return None
        if name in OPENING:
            opened = OPENED.search(call)
            return Path(opened[1]) if opened and (TO_WRITE.search(call) or name == "creat") else None
        named = NAMED.findall(call)
        # Relative to a folder that strace knows by its descriptor, or to the one in which commands are run.
        return Path(os.path.normpath(self.work / named[-1][0] / named[-1][1])) if named else None

    def _is_given(self, path: Path) -> bool:
        if self.work in path.parents or self.temporary in path.parents or path.is_char_device():
            return True
        if Path("/dev/shm") in path.parents:  # noqa: S108  # semaphores, whose name goes as soon as they are open
            return not path.exists()
        return Path("/proc") in path.parents


def _calls(log: Path) -> Iterator[str]:
    """Each call in one piece, without the process's number."""
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        process, call = line.split(maxsplit=1)
        if call.endswith(UNFINISHED):
            begun[process] = call.removesuffix(UNFINISHED)
        elif call.startswith("<... "):
            yield begun.pop(process, "") + call.partition(" resumed>")[2]
        else:
            yield call
    yield from begun.values()


def _speaks_beyond(call: str) -> bool:
    if not call.startswith(SPEAKING):
        return False
    if NAME_SERVICE_SOCKET.search(call):
        return True
    if any(port in NAME_SERVICE or not _is_loopback(address) for port, address in ADDRESS.findall(call)):
        return True
    families = set(FAMILY.findall(call))
    return not families <= WITHIN_THE_MACHINE | {"AF_INET", "AF_INET6"}


def _is_loopback(written: str) -> bool:
    address = ip_address(written)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback
