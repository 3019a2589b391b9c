"""Looks entries of a log up, without a look at the chain."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from medreward.screening.audit.chain import Broken, Entry, holders, read_line
from medreward.screening.audit.files import NEWLINE, files_of, lines_of


def find_decision(file: Path, decision_id: str) -> Entry | None:
    """Returns the entry of a decision in the log FILE, the newest files first; None where there is none."""
    mark = f'"event":"decision","decision_id":"{decision_id}"'.encode()
    for each in reversed(files_of(file)):
        for line in lines_of(each):
            if mark in line:
                entry: Entry = msgspec.json.decode(line)
                return entry
    return None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries to show. An empty part lets every entry through; digests are of what a subject must be about."""

    events: Collection[str] = ()
    since: str = ""
    until: str = ""
    decisions: Collection[str] = ()
    policy: str = ""
    tenant: str = ""
    verdict: str = ""
    digests: Collection[str] = ()

    def passes(self, entry: Entry) -> bool:
        """Returns whether the entry has all that is asked for. Times are compared as texts, in UTC."""
        return (
            (not self.events or entry["event"] in self.events)
            and (not self.since or entry["time"] >= self.since)
            and (not self.until or entry["time"] < self.until)
            and (not self.decisions or entry.get("decision_id") in self.decisions)
            and self.policy in ("", entry.get("policy", {}).get("name"))
            and self.tenant in ("", entry.get("tenant"))
            and (not self.verdict or any(part.get("verdict") == self.verdict for part in holders(entry)))
            and (not self.digests or any(is_about(part["subject"], self.digests) for part in holders(entry)))
        )


def is_about(subject: Entry | None, digests: Collection[str]) -> bool:
    """Returns whether one of the digests is that of the image, the question or the response of a subject. An override
    has none: its subject is the reason alone."""
    if not subject or "reason" in subject:
        return False
    return any(digest in digests for digest in (subject["question"], subject["response"], *subject["images"]))


def select(
    files: Iterable[Path], wanted: Filter, skipped: Callable[[str], None], key: bytes | None = None
) -> Iterator[Entry]:
    """Yields the entries that pass, in the order in which they were written. A line that is broken is left out, and
    `skipped` is told which one."""
    for file in files:
        for number, raw in enumerate(lines_of(file), 1):
            try:
                entry = read_line(raw.removesuffix(NEWLINE), key)
            except Broken as broken:
                skipped(f"{file}, line {number} is left out: {broken}")
                continue
            if wanted.passes(entry):
                yield entry
