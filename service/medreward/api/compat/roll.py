"""ROLL's pair of routes: one takes a sample, the other tells its reward when it is there. ROLL polls for it."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from medreward.api.compat.asking import (
    Answer,
    Call,
    Foreign,
    Sample,
    by_dimension,
    call_of,
    described,
    read_foreign,
    reply,
    score,
    text_sample,
)
from medreward.api.compat.markup import apart
from medreward.api.observing import HASH_KEY, OUR_FAULT
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.requests import read_body
from medreward.api.shape import Shape
from medreward.engine.engine import Engine
from medreward.errors import Code, MedRewardError, RequestError

log = logging.getLogger("medreward")

router = APIRouter()

JOBS: Final = 4096  # of one tenant
LONGEST_TIMEOUT: Final = 3600.0


class SubmitRequest(Foreign):
    """`reward_info` may name the image and the question. A result is kept for `timeout` seconds."""

    prompt: str
    response: str
    reward_info: dict[str, Any] | None = None
    timeout: float = Field(300, gt=0)


class SubmitReply(Shape):
    errcode: Literal[0]
    reward_request_id: str


class ResultRequest(Foreign):
    reward_request_id: str


class Dimension(Shape):
    logit: float | None
    score: float | None


class ResultReply(Shape):
    """`errcode` is 1 while the sample waits for its reward, and 0 when the reward is there."""

    errcode: Literal[0, 1]
    reward_request_id: str
    reward_score: float | None = None
    dimention_reward_score: dict[str, Dimension] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    task: asyncio.Task[Answer | MedRewardError]
    ends: float

    @property
    def has_failed(self) -> bool:
        return self.task.done() and isinstance(self.task.result(), MedRewardError)


class Jobs:
    """What was submitted and not forgotten yet, by tenant and id."""

    def __init__(self) -> None:
        self._of_tenants: dict[str, dict[str, Job]] = {}

    def find(self, tenant: str, id_: str) -> Job | None:
        return self._kept(tenant).get(id_)

    def start(self, tenant: str, id_: str, timeout: float, work: Coroutine[Any, Any, Answer | MedRewardError]) -> None:
        """Runs the work; it is forgotten when its time is over."""
        task = asyncio.create_task(work, name="roll")
        self._kept(tenant)[id_] = Job(task, time.monotonic() + timeout)

    def check_room(self, tenant: str) -> None:
        """Refuses one job more than a tenant may have."""
        if len(self._kept(tenant)) >= JOBS:
            detail = f"{JOBS} submitted samples wait to be asked for; try again later"
            raise RequestError(Code.OVERLOADED, detail, retry_after=1)

    def _kept(self, tenant: str) -> dict[str, Job]:
        jobs, now = self._of_tenants.setdefault(tenant, {}), time.monotonic()
        for id_, job in [*jobs.items()]:
            if job.ends <= now:
                job.task.cancel()
                del jobs[id_]
        return jobs


def jobs_of(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def sample(body: SubmitRequest) -> Sample:
    return text_sample("/response", apart(body.prompt + body.response, len(body.prompt)), body.reward_info)


async def _outcome(
    engine: Engine, call: Call, body: SubmitRequest, size: int, patience: float
) -> Answer | MedRewardError:
    """Returns the answer, or the error with which the result is refused."""
    try:
        with engine.bodies.reserve(size):
            (answer,) = await score(engine, call, [sample(body)], patience)
            return answer
    except MedRewardError as error:
        return error
    except Exception:
        log.exception("the server failed on this request", extra={"request_id": call.entry.request_id})
        return OUR_FAULT


@router.post(
    "/roll/submit",
    tags=["trainers"],
    responses={200: {"model": SubmitReply}, **PROBLEMS},
    openapi_extra=described(SubmitRequest),
)
async def submit(request: Request) -> Response:
    """Takes a sample of ROLL. The same sample again gets the same id and is not scored twice, unless it failed."""
    engine, call, jobs = engine_of(request), call_of(request), jobs_of(request)
    engine.refuse_early(call.entry.lane)
    tenant = call.entry.caller.tenant
    with engine.bodies.reserve() as room:
        data = await read_body(request, engine.settings, room)
        body = read_foreign(SubmitRequest, data, engine.settings)
    id_ = blake2b(f"{tenant}?{request.query_params}#".encode() + data, key=HASH_KEY, digest_size=16).hexdigest()
    known = jobs.find(tenant, id_)
    if known is None or known.has_failed:
        jobs.check_room(tenant)
        call.entry.caller.charge(1)
        timeout = min(body.timeout, LONGEST_TIMEOUT)
        jobs.start(tenant, id_, timeout, _outcome(engine, call, body, len(data), timeout))
    return reply(request, {"errcode": 0, "reward_request_id": id_})


@router.get(
    "/roll/result",
    tags=["trainers"],
    responses={200: {"model": ResultReply}, **PROBLEMS},
    openapi_extra={"requestBody": described(ResultRequest)["requestBody"]},
)
async def result(request: Request) -> Response:
    """Tells the reward of a sample that was submitted, as often as it is asked within the sample's time."""
    engine = engine_of(request)
    with engine.bodies.reserve() as room:
        data = await read_body(request, engine.settings, room)
        id_ = read_foreign(ResultRequest, data, engine.settings).reward_request_id
    job = jobs_of(request).find(entry_of(request.scope).caller.tenant, id_)
    if job is None:
        detail = "no sample was submitted under this id, or its time is over: submit it again"
        raise RequestError(Code.NOT_FOUND, detail, "/reward_request_id")
    if not job.task.done():
        return reply(request, {"errcode": 1, "reward_request_id": id_})
    answer = job.task.result()
    if isinstance(answer, MedRewardError):
        raise answer
    logits, scores = by_dimension(answer.logits), by_dimension(answer.scores)
    dimensions = {name: {"logit": logits[name], "score": scores[name]} for name in logits}
    about = {"errcode": 0, "reward_request_id": id_}
    return reply(request, {**about, "reward_score": answer.reward, "dimention_reward_score": dimensions})
