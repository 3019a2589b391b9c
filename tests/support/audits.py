"""Audit logs that tests make."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from medreward.screening.audit.chain import Entry
from medreward.screening.audit.key import AuditKey
from medreward.screening.audit.log import AuditLog, now

KEY = AuditKey(bytes(range(32)))


def decision(n: int, *responses: str, verdict: str = "allow", tenant: str = "") -> Entry:
    """Returns an entry like that of a decision on an image of its own and these responses."""
    return {
        "time": now(),
        "event": "decision",
        "decision_id": f"{n:032x}",
        "request_id": f"request-{n}",
        "key": "",
        "tenant": tenant,
        "policy": {"name": "strict", "version": "1", "digest": f"sha256:{'a' * 64}"},
        "model": {"name": "fake", "version": "0", "fingerprint": f"sha256:{'b' * 64}", "runtime": "fake/cpu/fp32"},
        "results": [
            {
                "item": 0,
                "response": place,
                "department": "",
                "verdict": verdict,
                "rule": "good",
                "error": None,
                "subject": {
                    "salt": f"{n:030x}{place:02x}",
                    "images": [KEY.digest(f"image {n}")],
                    "question": KEY.digest("Is there a fracture?"),
                    "response": KEY.digest(response),
                    "scores": {"accuracy": 0.1 * place},
                },
            }
            for place, response in enumerate(responses or (f"response {n}",))
        ],
    }


def override(n: int, reason: str, response: int = 0) -> Entry:
    """Returns an entry like that of an override of a decision."""
    about = {"time": now(), "event": "override", "decision_id": f"{n:032x}", "item": 0, "response": response}
    verdicts = {"decided": "allow", "verdict": "block", "request_id": "r", "key": "", "tenant": ""}
    return about | verdicts | {"subject": {"salt": f"{n:032x}", "reason": reason}}


def opened(file: Path, max_bytes: int = 2**30, key: AuditKey = KEY) -> "closing[AuditLog]":
    """Returns the log, opened for a with block."""
    return closing(AuditLog(file, key, max_bytes))


def write_log(file: Path, entries: Sequence[Entry], max_bytes: int = 2**30) -> None:
    """Writes a log of an opening and these entries, each with a write of its own."""
    with opened(file, max_bytes) as log:
        for entry in entries:
            log.append([entry])


def read_entries(*files: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
