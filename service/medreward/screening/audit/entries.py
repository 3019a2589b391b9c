"""What the log says of a decision and of an override. Nothing of a payload is in it but keyed digests."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pybase64

from medreward.screening.audit.chain import Entry
from medreward.screening.audit.key import AuditKey
from medreward.screening.deciding import Decision
from medreward.types import (
    DIMENSIONS,
    Base64Image,
    Failed,
    FrameImage,
    ImageSource,
    InlineImage,
    Result,
    Six,
    StoredImage,
    Verdict,
)

if TYPE_CHECKING:  # it imports this room
    from medreward.screening.screening import Screened


@dataclass(frozen=True, slots=True)
class Override:
    """Another verdict on one response of a decision, given by a person."""

    decision_id: str
    item: int
    response: int
    decided: Verdict  # of the policy
    verdict: Verdict
    reason: str
    key_id: str
    tenant: str
    request_id: str


def decision_entry(screened: "Screened", time: str, key: AuditKey) -> Entry:
    """Returns the entry of a decision. It hashes texts, which may take milliseconds."""
    asked, policy, model = screened.request.asked, screened.policy, screened.response.model.as_json()
    return {
        "time": time,
        "event": "decision",
        "decision_id": screened.id,
        "request_id": asked.id,
        **({"trace_id": asked.trace.id} if asked.trace else {}),
        "key": screened.request.key_id,
        "tenant": asked.tenant,
        "policy": policy.as_json(),
        "model": {name: model[name] for name in ("name", "version", "fingerprint", "runtime")},
        "results": [
            _result(screened, result, decision, key)
            for result, decision in zip(screened.response.results, screened.decisions, strict=True)
        ],
    }


def override_entry(override: Override, time: str) -> Entry:
    """Returns the entry of an override. Its subject is the reason, a person's own words."""
    return {
        "time": time,
        "event": "override",
        "decision_id": override.decision_id,
        "item": override.item,
        "response": override.response,
        "decided": override.decided,
        "verdict": override.verdict,
        "request_id": override.request_id,
        "key": override.key_id,
        "tenant": override.tenant,
        "subject": {"salt": secrets.token_hex(16), "reason": override.reason},
    }


def _result(screened: "Screened", result: Result, decision: Decision, key: AuditKey) -> Entry:
    departments, policy = screened.request.departments, screened.policy.policy
    department = departments[result.item] if departments else ""
    return {
        "item": result.item,
        "response": result.response,
        # A department that the policy does not name decides nothing, and may be any text of the client's.
        "department": department if department in policy.departments else "",
        "verdict": decision.verdict,
        "rule": decision.reasons[0].rule if decision.reasons else None,
        "error": result.error.code if isinstance(result, Failed) else None,
        "subject": _subject(screened, result, decision, key),
    }


def _subject(screened: "Screened", result: Result, decision: Decision, key: AuditKey) -> Entry:
    """Returns what can be erased of a result. Without the salt, a short subject could be guessed from its SHA-256."""
    item = screened.request.asked.items[result.item]
    known = screened.response.images[result.item] if screened.response.images else ()
    digests = known or [_sha256_of(image) for image in item.images]
    return {
        "salt": secrets.token_hex(16),
        "images": [key.digest_of(digest) if digest else None for digest in digests],
        "question": key.digest(item.question),
        **({"history": key.digest(json.dumps([turn.as_json() for turn in item.history]))} if item.history else {}),
        "response": key.digest(item.responses[result.response]),
        **_numbers(result),
        "reasons": decision.reasons,
        "margin": decision.margin,
        "flags": result.flags,
    }


def _numbers(result: Result) -> Mapping[str, Any]:
    if isinstance(result, Failed):
        return dict.fromkeys(("scores", "logits", "uncertainty", "reward"))
    return {
        "scores": _six(result.scores),
        "logits": _six(result.logits),
        "uncertainty": _six(result.uncertainty) if result.uncertainty else None,
        "reward": result.reward,
    }


def _six(values: Six) -> dict[str, float | None]:
    return dict(zip(DIMENSIONS, values, strict=True))


def _sha256_of(image: ImageSource) -> str | None:
    """Returns the SHA-256 of an image that the engine did not open; None where its bytes are not in the request."""
    match image:
        case InlineImage(data):
            return hashlib.sha256(data).hexdigest()
        case StoredImage(sha256):
            return sha256
        case FrameImage(file):
            return _sha256_of(file)
        case Base64Image(text):
            try:
                return hashlib.sha256(pybase64.b64decode(text, validate=True)).hexdigest()
            except ValueError:
                return None
        case _:
            return None
