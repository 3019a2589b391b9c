"""The files of an audit log: FILE, which is written, and `STEM.000001.SUFFIX` and so on, which were FILE before."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from medreward.errors import ConfigurationError
from medreward.screening.audit.chain import Broken, Entry, read_line

BLOCK: Final = 64 * 1024
NEWLINE: Final = b"\n"


def rotated(file: Path, number: int) -> Path:
    """Returns the name that FILE gets when it is full and was the log's file of this number."""
    return file.with_name(f"{file.stem}.{number:06d}{file.suffix}")


def number_of(file: Path, older: Path) -> int | None:
    """Returns the number of an older file of the log FILE; None for a file that is none."""
    pattern = rf"{re.escape(file.stem)}\.([0-9]{{6,}}){re.escape(file.suffix)}"
    found = re.fullmatch(pattern, older.name)
    return int(found[1]) if found else None


def older_files(file: Path) -> list[Path]:
    """Returns the files that FILE was before, oldest first."""
    numbered = ((number_of(file, path), path) for path in file.parent.glob(f"{glob.escape(file.stem)}.*"))
    return [path for _, path in sorted((number, path) for number, path in numbered if number is not None)]


def files_of(file: Path) -> list[Path]:
    """Returns all files of the log FILE, oldest first."""
    return [*older_files(file), *([file] if file.exists() else [])]


def logs_in(folder: Path) -> list[Path]:
    """Returns the FILE of each audit log in a folder. What begins as no log's file does is left out."""
    begins = (path.name for path in folder.glob("*.jsonl") if next(lines_of(path), b"").startswith(b'{"seq":'))
    names = {re.sub(r"\.[0-9]{6,}(?=\.jsonl$)", "", name) for name in begins}
    return [folder / name for name in sorted(names)]


def lines_of(file: Path) -> Iterator[bytes]:
    """Yields the lines of a file with their line ends; the last one may lack it."""
    try:
        with file.open("rb") as opened:
            yield from opened
    except OSError as error:
        raise ConfigurationError(f"audit log {file}: {error.strerror}") from None


def entries_of(file: Path) -> Iterator[Entry]:
    """Yields the entries of a file. Fails with a ConfigurationError that names the line where one is broken."""
    for number, line in enumerate(lines_of(file), 1):
        try:
            yield read_line(line.removesuffix(NEWLINE))
        except Broken as broken:
            raise ConfigurationError(f"{file}, line {number}: {broken}: run `medreward audit verify`") from None


def whole_length(fd: int) -> int:
    """Returns how many bytes of the open file belong to whole lines. What comes behind was never written to its
    end."""
    end = os.fstat(fd).st_size
    for start in range((end - 1) // BLOCK * BLOCK, -1, -BLOCK):
        newline = os.pread(fd, BLOCK, start).rfind(NEWLINE)
        if newline >= 0:
            return start + newline + 1
    return 0


def last_line(fd: int, length: int) -> bytes:
    """Returns the last line of the first `length` bytes, which end with a line end, without that."""
    tail, start = b"", length - 1
    while start > 0 and NEWLINE not in tail:
        start, end = max(0, start - BLOCK), start
        tail = os.pread(fd, end - start, start) + tail
    return tail.rpartition(NEWLINE)[2]
