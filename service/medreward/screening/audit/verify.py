"""Finds what was changed, dropped, moved or added in an audit log."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from medreward.screening.audit.chain import START, Broken, Entry, holders, read_line
from medreward.screening.audit.files import NEWLINE, lines_of

ERASE_AGAIN: Final = ": erase it again"


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int  # 0 for what concerns no line
    what: str

    @property
    def is_unfinished_erasure(self) -> bool:
        """Whether the same erasure once more mends it."""
        return self.what.endswith(ERASE_AGAIN)

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(slots=True)
class Report:
    """What a log is. `hash` is that of the last entry."""

    files: int = 0
    entries: int = 0
    first: int = 0
    last: int = 0
    hash: str = START
    erased: int = 0
    torn: int = 0  # times that a server was stopped while it wrote, and went on
    mac_checked: bool = False
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Line:
    file: Path
    number: int
    seq: int
    hash: str

    def problem(self, what: str) -> Problem:
        return Problem(str(self.file), self.number, what)


class Check:
    """One pass over the lines of a log, oldest first."""

    def __init__(self, key: bytes | None, begins_after: str | None, expected: str | None) -> None:
        self.report = Report(mac_checked=key is not None)
        self._key = key
        self._begins_after = begins_after
        self._expected = expected
        self._is_expected_seen = expected is None
        self._last: Line | None = None
        self._broken = 0  # lines since the last whole one
        self._erased: dict[tuple[int, int], Line] = {}  # places without a subject
        self._erasures: dict[tuple[int, int], int] = {}  # places that an erasure names, and its seq

    def file(self, file: Path) -> None:
        """Reads the lines of the next file."""
        self.report.files += 1
        number = 0
        for number, raw in enumerate(lines_of(file), 1):
            self.report.entries += 1
            try:
                if not raw.endswith(NEWLINE):
                    raise Broken("the line does not end: it was cut, or the server was stopped while it wrote")
                entry = read_line(raw[:-1], self._key)
                line = Line(file, number, int(entry["seq"]), str(entry["hash"]))
            except Broken as broken:
                self._add(Problem(str(file), number, str(broken)))
                self._broken += 1
                continue
            self._take(line, entry)
        if not number:
            self._add(Problem(str(file), 0, "the file is empty"))

    def end(self) -> Report:
        """Checks what concerns the whole log, and returns what was found."""
        report, last = self.report, self._last
        for place in self._erased.keys() - self._erasures.keys():
            self._add(self._erased[place].problem("a subject is missing, and no erasure names it"))
        for place, seq in self._erasures.items():
            if place not in self._erased and report.first <= place[0] <= report.last:
                what = f"entry {place[0]} has a subject that entry {seq} erased{ERASE_AGAIN}"
                self._add(Problem(str(last.file) if last else "", 0, what))
        if not self._is_expected_seen:
            what = f"the entry with the expected hash {self._expected} is missing: the end of the log was cut off"
            self._add(Problem(str(last.file) if last else "", 0, what))
        report.erased = len(self._erased)
        return report

    def _take(self, line: Line, entry: Entry) -> None:
        report, last = self.report, self._last
        if problem := self._place(line, entry, last):
            self._add(line.problem(problem))
        self._broken = 0
        if line.hash == self._expected:
            self._is_expected_seen = True
        self._note(line, entry)
        if last is None:
            report.first = line.seq
        if last is None or line.seq > last.seq:
            self._last = line
            report.last, report.hash = line.seq, line.hash

    def _place(self, line: Line, entry: Entry, last: Line | None) -> str | None:
        """Returns what is wrong with where an entry stands, or None."""
        previous = entry["previous"]
        if last is None:
            if self._broken or previous in (START, self._begins_after):
                return None
            return (
                f"the log begins with entry {line.seq}: the entries before it are missing. If they were removed on "
                f"purpose, give --from {previous}"
            )
        if line.seq <= last.seq:
            return f"entry {line.seq} stands behind entry {last.seq}: it was moved here or added"
        missing = line.seq - last.seq - 1
        if missing > self._broken:  # else the broken lines may be those entries
            entries = f"entry {last.seq + 1} is" if missing == 1 else f"entries {last.seq + 1} to {line.seq - 1} are"
            return f"{entries} missing before entry {line.seq}"
        if not missing and previous != last.hash:
            return f"entry {line.seq} does not go on from the entry before it: one of the two was replaced"
        return None

    def _note(self, line: Line, entry: Entry) -> None:
        """Remembers what is erased, and what an erasure names."""
        for place, part in enumerate(holders(entry)):
            if part["subject"] is None:
                self._erased[line.seq, place] = line
        if entry["event"] == "erasure":
            try:
                places = msgspec.convert(entry.get("places"), list[tuple[int, int]])
            except msgspec.ValidationError:
                self._add(line.problem("it is no erasure as the server writes one"))
                return
            self._erasures.update((place, line.seq) for place in places)
        if entry.get("torn"):
            self.report.torn += 1

    def _add(self, problem: Problem) -> None:
        self.report.problems.append(problem)


def verify(
    files: Sequence[Path], key: bytes | None = None, begins_after: str | None = None, expected: str | None = None
) -> Report:
    """Returns what is found in the files of one log, oldest first.

    `begins_after` is the hash of the last entry that was removed on purpose; `expected` that of one that must be there.
    """
    check = Check(key, begins_after, expected)
    for file in files:
        check.file(file)
    return check.end()


def in_order(files: Iterable[Path]) -> list[Path]:
    """Returns the files in the order in which they were written: by the number of their first whole entry."""
    return sorted(files, key=_first_seq)


def _first_seq(file: Path) -> int:
    for line in _whole(file):
        return int(line["seq"])
    return 0


def _whole(file: Path) -> Iterator[Entry]:
    for raw in lines_of(file):
        try:
            yield read_line(raw.removesuffix(NEWLINE))
        except Broken:
            continue
