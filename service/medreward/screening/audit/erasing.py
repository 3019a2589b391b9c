"""Erases what a log holds about an image, a question, a response or a decision. The chain stays whole."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medreward.errors import ConfigurationError
from medreward.screening.audit.chain import Entry, erase, holders
from medreward.screening.audit.files import NEWLINE, entries_of
from medreward.screening.audit.log import now
from medreward.screening.audit.looking import is_about

Places = dict[Path, dict[int, set[int]]]  # by file and number of the entry: the places of the subjects


def find_subjects(files: Sequence[Path], digests: Collection[str], decisions: Collection[str]) -> Places:
    """Returns where subjects are about a payload with one of these digests, or about one of these decisions. The
    reasons of overrides of a result go with it. Fails with a ConfigurationError where a line is broken."""
    found: Places = {}
    about: set[tuple[str, int, int]] = set()  # decision, item and response
    for file in files:
        entries: dict[int, set[int]] = defaultdict(set)
        for entry in entries_of(file):
            for place, part in enumerate(holders(entry)):
                id_ = entry["decision_id"], part["item"], part["response"]
                subject = part["subject"]
                if id_ in about or id_[0] in decisions or is_about(subject, digests):
                    about.add(id_)
                    if subject is not None:
                        entries[entry["seq"]].add(place)
        if entries:
            found[file] = dict(entries)
    return found


def erasure_entry(places: Places, by: str) -> Entry:
    """Returns the entry that must be in the log before `rewrite`, so that no subject is missing without one."""
    all_places = [(seq, place) for found in places.values() for seq, parts in found.items() for place in sorted(parts)]
    return {"time": now(), "event": "erasure", "by": by, "places": all_places}


def rewrite(file: Path, entries: Mapping[int, Collection[int]]) -> None:
    """Replaces a file, in one step, by one without these subjects. Fails with a ConfigurationError."""
    about = file.stat()
    try:
        handle, new = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "wb") as opened:
            for entry in entries_of(file):
                opened.write(erase(entry, set(entries.get(entry["seq"], ()))) + NEWLINE)
            opened.flush()
            os.fchmod(handle, about.st_mode & 0o777)
            if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(handle, about.st_uid, about.st_gid)
            os.fsync(handle)
        Path(new).replace(file)
    except OSError as error:
        raise ConfigurationError(f"audit log {file}: {error.strerror}") from None
