"""The audit log of one server: appends entries to FILE so that what was appended is on disk, and begins a new file when
FILE is full. Its calls block; account.py makes them in a thread."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from medreward import __version__
from medreward.errors import ConfigurationError
from medreward.screening.audit.chain import Broken, Entry, Head, read_line, seal
from medreward.screening.audit.files import NEWLINE, last_line, lines_of, number_of, older_files, rotated, whole_length
from medreward.screening.audit.key import AuditKey

MODE: Final = 0o600
NOT_OURS: Final = "another program has moved, removed or changed it: leave the rotation to --audit-bytes"


def now() -> str:
    """Returns the time as entries have it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def is_open(file: Path) -> bool:
    """Returns whether a process has the log FILE open for writing."""
    try:
        with lock_file(file).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def lock_file(file: Path) -> Path:
    """Returns the file that a process locks while it writes the log. FILE itself cannot be: it is renamed."""
    return file.with_name(f"{file.name}.lock")


class AuditLog:
    """The end of the chain. One process at a time has it open.

    Fails with a ConfigurationError where another process has it, where FILE cannot be written, and where its last entry
    is broken or was made with another key.
    """

    def __init__(self, file: Path, key: AuditKey, max_bytes: int, is_synced: bool = True) -> None:
        self.file = file
        self.head = Head()
        self._key = key
        self._max_bytes = max_bytes
        self._is_synced = is_synced
        self._lock = self._fd = -1
        self._size = 0
        self._number = 1  # of FILE, among the files of the log
        self._is_half_written = False
        try:
            self._lock = self._locked()
            self._go_on()
        except OSError as error:
            self.close()
            raise ConfigurationError(f"audit log {file}: {error.strerror}") from None
        except ConfigurationError:
            self.close()
            raise

    def append(self, entries: Sequence[Entry]) -> None:
        """Writes the entries, in this order, and returns when they are on disk. Fails with an OSError; then none of
        them is in the log."""
        if self._fd < 0 or self._size >= self._max_bytes:
            self.rotate()
        self._write(entries)

    def rotate(self) -> None:
        """Renames FILE and opens a new one, whose first entry goes on with the chain. Fails with an OSError."""
        if self._fd >= 0:
            self._check_file()
            older = rotated(self.file, self._number)
            if older.exists():
                raise FileExistsError(errno.EEXIST, f"{older} is in the way")
            self.file.rename(older)
            os.close(self._fd)
            self._fd = -1
            self._number += 1
        self._open()
        self._write([])

    def close(self) -> None:
        """Lets another process have the log."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def state(self) -> dict[str, object]:
        """Returns what `GET /admin/state` shows: `hash` is the anchor to keep elsewhere."""
        return {"file": str(self.file), "seq": self.head.seq, "hash": self.head.hash, "bytes": self._size}

    def _locked(self) -> int:
        """Returns the lock file, which this process alone holds."""
        lock = os.open(lock_file(self.file), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ConfigurationError(
                f"audit log {self.file}: another process has it open: stop that one, or name another file"
            ) from None
        return lock

    def _go_on(self) -> None:
        """Takes up the chain where it ends, and writes an entry that says so."""
        if older := older_files(self.file):
            self._number = 1 + (number_of(self.file, older[-1]) or 0)
            self._take_head(older[-1])
        self._open()
        torn = self._set_torn_aside()
        if self._size:
            self._number = self._take_head(self.file)
        self._write([self._opening(torn)] if self._size else [], torn)  # an empty file gets its opening anyway

    def _take_head(self, file: Path) -> int:
        """Goes on from the last entry of a file; returns the number that its first entry gives it."""
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            opening = read_line(next(lines_of(file), b"").removesuffix(NEWLINE))
            last = read_line(last_line(fd, whole_length(fd)))
        except Broken as broken:
            raise ConfigurationError(
                f"audit log {file}: its first or last line is broken ({broken}): look at it with `medreward audit "
                "verify`, then move all files of this log away, and a new chain begins"
            ) from None
        finally:
            os.close(fd)
        if opening["key"] != self._key.fingerprint:
            raise ConfigurationError(
                f"audit log {file}: it was written with the key {opening['key']}, and this is {self._key.fingerprint}: "
                "give the old key, or move all files of this log away, and a new chain begins"
            )
        self.head = Head(last["seq"], last["hash"])
        return int(opening["file"])

    def _open(self) -> None:
        self._fd = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, MODE)
        about = os.fstat(self._fd)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        self._size = about.st_size
        self._sync_folder()

    def _set_torn_aside(self) -> dict[str, object] | None:
        """Moves the bytes behind the last whole line into a file of their own. A server that was stopped while it wrote
        leaves them; nobody was answered for them. Returns what the log says about it, None where there are none."""
        whole = whole_length(self._fd)
        torn = os.pread(self._fd, self._size - whole, whole)
        if not torn:
            return None
        kept = self.file.with_name(f"{self.file.name}.torn.{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "wb") as aside:
            aside.write(torn)
        os.ftruncate(self._fd, whole)
        self._size = whole
        return {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest(), "kept_as": kept.name}

    def _opening(self, torn: dict[str, object] | None = None) -> Entry:
        """Returns the entry that stands at the beginning of each file, and wherever a server took the log up."""
        about = {"version": __version__, "key": self._key.fingerprint, "file": self._number, "torn": torn}
        return {"time": now(), "event": "open", **about}

    def _write(self, entries: Sequence[Entry], torn: dict[str, object] | None = None) -> None:
        self._check_file()
        head, lines = self.head, []
        for entry in entries if self._size else [self._opening(torn), *entries]:
            line, head = seal(entry, head, self._key.secret)
            lines += [line, NEWLINE]
        data = memoryview(b"".join(lines))
        length = len(data)
        try:
            self._is_half_written = True
            while data:
                data = data[os.write(self._fd, data) :]
            if self._is_synced:
                os.fdatasync(self._fd)
        except OSError:
            with suppress(OSError):
                self._cut()
            raise
        self._is_half_written = False
        self.head, self._size = head, self._size + length

    def _check_file(self) -> None:
        """Fails with an OSError where FILE is not the file that this process has written."""
        if self._is_half_written:
            self._cut()
        there, ours = self.file.stat(), os.fstat(self._fd)
        if (there.st_dev, there.st_ino, there.st_size) != (ours.st_dev, ours.st_ino, self._size):
            raise OSError(errno.ESTALE, NOT_OURS)

    def _cut(self) -> None:
        """Takes back what a failed write left, so that no half line stands between two others."""
        os.ftruncate(self._fd, self._size)
        self._is_half_written = False

    def _sync_folder(self) -> None:
        """Makes the names of files outlast a power failure."""
        folder = os.open(self.file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
