"""Screening: scores a request, decides on each response by a policy, and tells those who keep account of decisions."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from medreward.engine.engine import Engine
from medreward.engine.serving import Serving
from medreward.errors import Code, ItemError, RequestError
from medreward.screening.accounts import open_drift, open_shadow
from medreward.screening.audit.account import Audit
from medreward.screening.deciding import Decision
from medreward.screening.drift import Drift, DriftAccount
from medreward.screening.policies import Policies
from medreward.screening.policy import PolicyFile
from medreward.screening.policy_folder import Served
from medreward.screening.shadow import Shadow
from medreward.types import Failed, ScoreRequest, ScoreResponse, Thinking, Verdict

#: Causes for which a request that is right has no scores now. Each of its responses is then unscored.
UNSCORED: Final = frozenset(
    {
        Code.OVERLOADED,
        Code.NOT_READY,
        Code.ASLEEP,
        Code.DEADLINE,
        Code.WORKER_LOST,
        Code.OUT_OF_MEMORY,
        Code.INTERNAL,
    }
)


@dataclass(frozen=True, slots=True)
class ScreenRequest:
    """What to score, and by which policy to decide. Each item may belong to a department of its own."""

    asked: ScoreRequest
    policy: str | None = None  # None: the server's default
    departments: tuple[str, ...] = ()  # one for each item; empty: none has one
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Screened:
    """The scores of a request, and a decision for each of its results."""

    id: str
    request: ScreenRequest
    response: ScoreResponse
    policy: PolicyFile
    decisions: tuple[Decision, ...]

    def first_unscored(self) -> Failed | None:
        """Returns the first response that is unscored, and why; None where each has a verdict."""
        for result, decision in zip(self.response.results, self.decisions, strict=True):
            if isinstance(result, Failed):
                return result
            if decision.verdict is Verdict.UNSCORED:
                detail = "the policy has a rule on a number that the model does not give for this response"
                return Failed(result.item, result.response, ItemError(Code.UNSUPPORTED_FIELD, detail))
        return None


class Account(Protocol):
    """Keeps account of decisions: the audit log, the drift monitors, the shadow."""

    async def note(self, screened: Screened) -> None:
        """Takes note of a decision before it is answered. A RequestError from here refuses the request."""
        ...


class Screening:
    """Decides on answers with one engine and the policies of one folder."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        settings = engine.settings
        self.policies = Policies(settings.policies, settings.default_policy)
        self.audit = Audit(settings, engine.metrics) if settings.audit else None
        self.accounts: list[Account] = [self.audit] if self.audit else []
        self.drift: Drift | None = None
        self.shadow: Shadow | None = None

    def start(self) -> None:
        """Reads the policies for the model that the engine has loaded, and from now on for each that is to take over;
        begins to watch drift and to keep a shadow.

        Fails with a ConfigurationError.
        """
        self._accept(self._engine.serving)()
        self._engine.models.gates.append(self._accept)
        if drift := open_drift(self._engine):
            self.drift = drift
            self.accounts.append(DriftAccount(drift))
        if shadow := open_shadow(self._engine, self.policies):
            self.shadow = shadow
            self.accounts.append(shadow)

    def _accept(self, serving: Serving) -> Callable[[], None]:
        """Reads the policies for this model; what is returned lets them decide. Fails with a ConfigurationError where
        they were made for another model."""
        settings, manifest = self._engine.settings, serving.model.manifest
        policies = Policies(settings.policies, settings.default_policy)
        policies.load(
            Served(serving.ref.fingerprint, tuple(manifest.dimensions), serving.uncertainty is not None),
            serving.model.default_weights,
            serving.model.folder / "policies" if serving.model.folder else None,
        )

        def take_over() -> None:
            self.policies = policies
            policies.come_into_force()
            self._engine.metrics.expect_verdicts(policies.names)
            if self.drift:  # another model has other scores
                self.drift.reset_for_another_model()

        return take_over

    def state(self) -> dict[str, object]:
        """Returns what `GET /admin/state` shows of the accounts; None for one that is not kept."""
        return {
            "audit": self.audit.state() if self.audit else None,
            "drift": self.drift.state() if self.drift else None,
            "shadow": self.shadow.state() if self.shadow else None,
        }

    async def close(self) -> None:
        """Ends the shadow, and writes what the audit log has not yet."""
        if self.shadow:
            await self.shadow.close()
        if self.audit:
            await self.audit.close()

    async def screen(self, request: ScreenRequest) -> Screened:
        """Returns a decision for each response. What could not be scored is unscored, whatever the cause.

        Fails with a RequestError for a request that is wrong, and where an account refuses it.
        """
        if request.asked.options.thinking is Thinking.BOTH:
            detail = "a verdict is on one text: thinking must be keep or strip here"
            raise RequestError(Code.INVALID_FIELD, detail, "/options/thinking")
        ref = self._engine.serving.ref
        policy, decider = self.policies.get(request.policy)
        items = request.asked.items
        if request.departments:
            pairs = zip(items, request.departments, strict=True)
            items = tuple(replace(item, department=department) for item, department in pairs)
        pinned = _pinned(request.asked, policy.policy.fingerprint)
        asked = replace(request.asked, items=items, fingerprint=pinned)
        try:
            response = await self._engine.score(asked)
        except RequestError as refusal:
            if refusal.code not in UNSCORED:
                raise
            error = ItemError(refusal.code, refusal.detail, retry_after=refusal.retry_after)
            response = ScoreResponse.failed(asked, ref, error)
        decisions = decider.decide_all(asked, response, request.departments)
        screened = Screened(uuid.uuid4().hex, request, response, policy, decisions)
        for account in self.accounts:
            await account.note(screened)
        for decision in decisions:
            self._engine.metrics.verdicts.labels(policy.policy.name, decision.verdict).inc()
        return screened


def _pinned(asked: ScoreRequest, fingerprint: str) -> str:
    """Returns the fingerprint of the policy, whose model must answer. Refuses a request that wants another model."""
    if asked.fingerprint not in (None, fingerprint):
        detail = f"the policy was made for the model {fingerprint}, which is not the one that was asked for"
        raise RequestError(Code.VERSION_CHANGED, detail)
    return fingerprint
