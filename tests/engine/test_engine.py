"""What the engine does when things go wrong or late; what it does when they go right is tested through its doors."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from medreward.backends.base import Group, Logits
from medreward.backends.fake import FakeBackend, WordTokenizer
from medreward.engine import serving
from medreward.engine.engine import Engine
from medreward.errors import Code, ConfigurationError, RequestError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import Explain, Failed, Flag, Item, Lane, Options, Scored, ScoreRequest
from serving import running as running_server
from serving import settings_for
from waiting import until


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Engine]:
    engine = Engine(Settings(**{"model": "fake", "isolation": "inline", **settings}), Metrics(CollectorRegistry()))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def request(*items: Item, **how: Any) -> ScoreRequest:
    return ScoreRequest("test", items or (Item("what?", ("this",)),), **how)


def value(engine: Engine, name: str, **labels: str) -> float | None:
    return engine.metrics.registry.get_sample_value(name, labels)


async def test_before_the_model_is_there_a_request_is_told_to_come_back() -> None:
    engine = Engine(Settings(model="fake"), Metrics(CollectorRegistry()))
    with pytest.raises(RequestError) as refused:
        await engine.score(request())
    assert (refused.value.code, refused.value.retry_after) == (Code.NOT_READY, 1)
    assert engine.not_ready() == "loading"
    await engine.close()


async def test_a_deadline_that_passes_fails_the_request_and_leaves_no_work() -> None:
    async with running(fake_delay_ms=1000) as engine:
        first = asyncio.create_task(engine.score(request(Item("first", ("x",)))))
        await until(lambda: engine.state()["triples_in_flight"] == 1 and engine.state()["triples_waiting"] == 0)
        with pytest.raises(RequestError) as refused:
            await engine.score(request(deadline_s=0.05))
        assert refused.value.code is Code.DEADLINE
        assert isinstance((await first).results[0], Scored)
        await engine.score(request(Item("next", ("x",))))
        assert value(engine, "medreward_batch_items_count") == 2  # the late one never reached the device
        assert engine.state()["cost_admitted"] == 0


async def test_work_beyond_the_queue_is_refused_with_a_time_to_come_back() -> None:
    async with running(fake_delay_ms=500, queue_cost=10) as engine:
        accepted = asyncio.create_task(engine.score(request()))
        await until(lambda: engine.state()["cost_admitted"] != 0)
        with pytest.raises(RequestError) as refused:
            await engine.score(request(Item("a long question " * 10, ("this",)), lane=Lane.INTERACTIVE))
        assert refused.value.code is Code.OVERLOADED
        assert (refused.value.retry_after or 0) >= 1
        assert isinstance((await accepted).results[0], Scored)
        assert value(engine, "medreward_queue_cost", lane="bulk") == 0
        assert value(engine, "medreward_items_total", outcome="overloaded") == 1


async def test_what_passes_later_fails_the_request_only_if_nothing_was_scored() -> None:
    """Two items, room for one: the other is an item's error, not the request's."""
    async with running(fake_delay_ms=50, queue_cost=10) as engine:
        answer = await engine.score(request(Item("what?", ("this",)), Item("a long question " * 10, ("this",))))
        first, second = answer.results
        assert isinstance(first, Scored)
        assert isinstance(second, Failed)
        assert second.error.code is Code.OVERLOADED


async def test_responses_keep_their_order_around_one_that_failed() -> None:
    async with running(text_chars=10) as engine:
        answer = await engine.score(request(Item("what?", ("a", "far too long a text", "", "b"))))
    assert [result.response for result in answer.results] == [0, 1, 2, 3]
    failed = answer.results[1]
    assert isinstance(failed, Failed)
    assert failed.error.code is Code.TOO_LONG
    assert answer.results[2].flags == (Flag.NO_IMAGE, Flag.EMPTY_RESPONSE)


async def test_draining_finishes_what_was_accepted_and_takes_nothing_new() -> None:
    async with running(fake_delay_ms=500) as engine:
        accepted = asyncio.create_task(engine.score(request()))
        await until(lambda: engine.state()["cost_admitted"] != 0)
        engine.drain()
        with pytest.raises(RequestError) as refused:
            await engine.score(request())
        assert refused.value.code is Code.NOT_READY
        assert not accepted.done()
        await engine.idle()
        assert isinstance((await accepted).results[0], Scored)


class Nan(FakeBackend):
    """The fake backend, but for one text."""

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        return [
            np.where([[[list(ids) == WordTokenizer().encode("one")]] for ids in group.answers], np.nan, logits).astype(
                np.float32
            )
            for group, logits in zip(groups, super().score(groups), strict=True)
        ]


async def test_a_number_that_is_none_fails_its_response_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "open_backend", lambda *_: Nan())
    async with running() as engine:
        answer = await engine.score(request(Item("what?", ("one", "two words"))))
        bad, good = answer.results
        assert isinstance(bad, Failed)
        assert bad.error.code is Code.NON_FINITE_SCORE
        assert isinstance(good, Scored)
        assert value(engine, "medreward_nonfinite_scores_total") == 1


class Sick(FakeBackend):
    """Gives no finite numbers, or none at all, while a test says so."""

    logits: float | None = None
    fails = False

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        if Sick.fails:
            raise RuntimeError("sick")
        made = super().score(groups)
        return made if Sick.logits is None else [np.full_like(logits, Sick.logits) for logits in made]


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> type[Sick]:
    monkeypatch.setattr(serving, "open_backend", lambda *_: Sick())
    monkeypatch.setattr(Sick, "logits", None)
    monkeypatch.setattr(Sick, "fails", False)
    return Sick


async def test_a_device_that_gives_no_finite_numbers_is_not_ready_until_it_does(sick: type[Sick]) -> None:
    async with running_server(probe_seconds=0.01) as server:
        assert (await server.rest.get("/readyz")).status_code == 200
        sick.logits = math.inf
        await until(lambda: server.engine.not_ready() is not None)
        reply = await server.rest.get("/readyz")
        assert (reply.status_code, reply.json()["detail"]) == (
            503,
            "the model gave no finite numbers for the last test triple",
        )
        sick.logits = None
        await until(lambda: server.engine.not_ready() is None)


@pytest.mark.parametrize(("logits", "fails"), [(math.nan, False), (None, True)])
async def test_a_model_that_fails_on_its_first_probe_is_not_served(
    sick: type[Sick], logits: float | None, fails: bool
) -> None:
    sick.logits, sick.fails = logits, fails
    engine = Engine(settings_for(), Metrics(CollectorRegistry()))
    with pytest.raises(ConfigurationError, match="test triple"):
        await engine.start()


async def test_without_a_thread_to_spare_what_needs_one_may_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    long, short = Item("what?", ("word " * 10_000,)), Item("what?", ("this",))
    async with running(text_chars=100_000) as engine:
        with monkeypatch.context() as exhausted, ThreadPoolExecutor(1) as pool:  # whose thread is not there yet
            exhausted.setattr(asyncio.get_running_loop(), "_default_executor", pool)
            exhausted.setattr(threading.Thread, "start", no_more)
            with pytest.raises(RequestError) as refused:
                await engine.score(request(long))
            assert (refused.value.code, refused.value.retry_after) == (Code.OVERLOADED, 1)
            with pytest.raises(RequestError) as refused:
                await engine.triples_of(request(short, options=Options(explain=Explain.SENTENCES)))
            assert refused.value.code is Code.OVERLOADED
            assert isinstance((await engine.score(request(short))).results[0], Scored)
        (result,) = (await engine.score(request(long))).results
        assert isinstance(result, Failed)
        assert result.error.code is Code.TOO_LONG


async def test_a_clock_that_is_set_changes_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(fake_delay_ms=50) as engine:
        for hours in (1, -1):
            waiting = asyncio.create_task(engine.score(request(Item("what?", (f"{hours}",)), deadline_s=30)))
            await asyncio.sleep(0.01)
            now = time.time()
            monkeypatch.setattr(time, "time", lambda now=now, hours=hours: now + 3600 * hours)
            assert isinstance((await waiting).results[0], Scored)
            monkeypatch.undo()
