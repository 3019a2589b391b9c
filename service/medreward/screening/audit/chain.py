"""The lines of an audit log: JSON objects that form a chain, because each one holds the hash of the line before it.

What an entry says about a patient's image and texts stands in its subjects. The chain covers the SHA-256 of a subject
and not the subject itself, so that a subject can be erased later and the chain stays whole.
"""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

START: Final = "0" * 64
LAST_FIELDS: Final = ["previous", "mac", "hash"]

Entry = dict[str, Any]


class Broken(ValueError):
    """A line is not as it was written. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: the number and the hash of its last entry."""

    seq: int = 0
    hash: str = START


def holders(entry: Entry) -> Iterator[Entry]:
    """Yields the parts of an entry that hold a subject: each result of a decision, or an override itself."""
    results = entry.get("results")
    for part in (entry, *(results if isinstance(results, list) else ())):
        if isinstance(part, dict) and "subject" in part:
            yield part


def seal(entry: Entry, head: Head, key: bytes) -> tuple[bytes, Head]:
    """Returns the entry as the next line of the chain, and the new head. `mac` shows that its writer had the key."""
    line: Entry = {"seq": head.seq + 1, **entry}
    for part in holders(line):
        part["subject_sha256"] = _sha256(msgspec.json.encode(part["subject"]))
    line["previous"] = head.hash
    bare = _bare(line)
    line["mac"] = bare["mac"] = _mac(bare, key)
    line["hash"] = _sha256(msgspec.json.encode(bare))
    return msgspec.json.encode(line), Head(head.seq + 1, line["hash"])


def read_line(raw: bytes, key: bytes | None = None) -> Entry:
    """Returns the entry of a line. Fails with Broken where a byte of it is not as it was written; a `mac` is checked
    where the key is given."""
    try:
        entry = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        raise Broken("it is no JSON") from None
    # Only this one spelling of an entry is right: another order of fields, a space or a repeated field is a change.
    if not isinstance(entry, dict) or [*entry][-3:] != LAST_FIELDS or msgspec.json.encode(entry) != raw:
        raise Broken("it is not written as the server writes a line")
    bare = _bare(entry)
    if _sha256(msgspec.json.encode({name: bare[name] for name in bare if name != "hash"})) != entry["hash"]:
        raise Broken("its hash does not fit what it says: it was changed")
    del bare["mac"], bare["hash"]
    if key and not hmac.compare_digest(_mac(bare, key), str(entry["mac"])):
        raise Broken("its mac was not made with this key: somebody else wrote it")
    if not isinstance(entry.get("seq"), int) or not isinstance(entry.get("event"), str):
        raise Broken("it is no entry of an audit log")
    for part in holders(entry):
        if part["subject"] is not None and _sha256(msgspec.json.encode(part["subject"])) != part.get("subject_sha256"):
            raise Broken("a subject in it was changed")
    return entry


def erase(entry: Entry, places: set[int]) -> bytes:
    """Returns the line of an entry without the subjects at these places."""
    for place, part in enumerate(holders(entry)):
        if place in places:
            part["subject"] = None
    return msgspec.json.encode(entry)


def _bare(line: Entry) -> Entry:
    """Returns a copy of the line without its subjects: what the chain covers."""
    bare = {**line}
    if "subject" in bare:
        bare["subject"] = None
    if isinstance(results := bare.get("results"), list):
        bare["results"] = [
            {**result, "subject": None} if isinstance(result, dict) and "subject" in result else result
            for result in results
        ]
    return bare


def _mac(bare: Entry, key: bytes) -> str:
    return hmac.digest(key, msgspec.json.encode(bare), "sha256").hex()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
