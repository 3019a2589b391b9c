"""What every trainer's adapter does with an answer that has no score."""

import asyncio
import logging
import math
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clients.canned import Answer, Request, canned, problem, right_answer
from medreward.clients import Client, NotScored, Patience, Refused, Score, Triple, Unreachable, VersionChanged
from medreward.clients.rewarding import LastBatch, Reward, RewardSource, source_of
from medreward.types import DIMENSIONS

ASKED = [Triple(None, "Is there a fracture?", text) for text in ("Yes.", "No, there is none.")]
LENGTHS = [4.0, 18.0]  # which the canned server gives as rewards
SHORT = Patience(seconds=0.3)


class Answering:
    """The right answer, but for as many calls as `fails` says, and for responses with the word `bad`."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST" and self.fails > 0:
            self.fails -= 1
            return problem(503, "overloaded")
        status, headers, body = right_answer(request)
        reply = msgspec.json.decode(body)
        for result in reply.get("results", ()):
            if "bad" in request.items[result["item"]]["responses"][result["response"]]:
                error = {"code": "too_long", "message": "it has 900 tokens", "field": "/items/0/responses/1"}
                result.update(status="error", error=error, scores=None, logits=None, reward=None)
        return status, headers, msgspec.json.encode(reply)


async def ask(source: RewardSource, asked: list[Triple | Score]) -> list[Reward]:
    """By both ways, which must agree."""
    one = await asyncio.to_thread(source.rewards, asked)
    assert one == await source.rewards_async(asked)
    return one


async def test_a_reward_comes_with_its_logits() -> None:
    async with canned(Answering()) as server:
        found = await ask(RewardSource(server.url), [*ASKED])
    assert [reward.value for reward in found] == LENGTHS
    assert found[0] == Reward(4.0, dict.fromkeys(DIMENSIONS, 0.0), 0.5)


async def test_an_empty_batch_asks_nothing() -> None:
    async with canned(Answering()) as server:
        assert await ask(RewardSource(server.url), []) == []
        assert server.asked == []


@pytest.mark.parametrize("on_error", ["raise", "retry"])
async def test_what_can_never_be_scored_raises_and_says_why(on_error: Any) -> None:
    async with canned(Answering()) as server:
        source = RewardSource(server.url, on_error=on_error)
        with pytest.raises(NotScored, match="too_long: 1 of 3 responses: it has 900 tokens"):
            await source.rewards_async([*ASKED, Triple(None, "?", "bad")])


async def test_a_number_stands_in_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async with canned(Answering()) as server:
        source = RewardSource(server.url, on_error=-1.5)
        with caplog.at_level(logging.WARNING, "medreward"):
            unread = Score(error="image_invalid", message="the client cannot read this image")
            found = await source.rewards_async([*ASKED, Triple(None, "?", "bad"), unread])
    assert [reward.value for reward in found] == [*LENGTHS, -1.5, -1.5]
    assert [reward.filled for reward in found] == [False, False, True, True]
    assert found[2].logits == dict.fromkeys(DIMENSIONS, -1.5)
    assert source.filled == 2
    assert "2 of 4 responses not scored: too_long 1, image_invalid 1; -1.5 stands in" in caplog.text


@pytest.mark.parametrize("on_error", ["raise", 0.0])
async def test_an_outage_ends_in_an_error_or_in_the_number_that_was_asked_for(on_error: Any) -> None:
    answering = Answering()
    async with canned(answering) as server:
        source = RewardSource(server.url, on_error=on_error, patience=SHORT)
        await source.rewards_async([*ASKED])
        answering.fails = 1000
        if on_error == "raise":
            with pytest.raises(NotScored, match="overloaded: 2 of 2 responses"):
                await source.rewards_async([*ASKED])
        else:
            assert [reward.value for reward in await source.rewards_async([*ASKED])] == [0.0, 0.0]


async def test_retry_waits_for_longer_than_any_patience() -> None:
    answering = Answering(fails=12)
    async with canned(answering) as server:
        found = await RewardSource(server.url, on_error="retry").rewards_async([*ASKED])
    assert [reward.value for reward in found] == LENGTHS
    assert (
        RewardSource("http://127.0.0.1:1", on_error="retry").client._client._tries.budget.patience.seconds == math.inf
    )


async def test_a_server_that_never_gave_a_score_is_no_reason_for_a_number() -> None:
    async with canned(Answering(fails=1000)) as server:
        source = RewardSource(server.url, on_error=0.0, patience=SHORT)
        with pytest.raises(Refused, match="gave no score at all yet"):
            await source.rewards_async([*ASKED])
    with pytest.raises(Unreachable):
        await RewardSource("http://127.0.0.1:1", on_error=0.0).rewards_async([*ASKED])


async def test_another_model_and_a_wrong_key_are_no_reason_for_a_number() -> None:
    answers: list[Callable[[Request], Answer]] = [right_answer]
    async with canned(lambda request: answers[-1](request)) as server:
        source = RewardSource(server.url, on_error=0.0)
        await source.rewards_async([*ASKED])
        answers.append(lambda request: right_answer(request, "sha256:b"))
        with pytest.raises(VersionChanged):
            await source.rewards_async([*ASKED])
        answers.append(lambda request: problem(401, "unauthenticated"))
        with pytest.raises(Refused, match="unauthenticated"):
            await source.rewards_async([*ASKED])


async def test_a_model_without_the_dimension_is_no_reason_for_a_number() -> None:
    def without(request: Request) -> Answer:
        status, headers, body = right_answer(request)
        reply = msgspec.json.decode(body)
        for result in reply.get("results", ()):
            result["reward"] = None
        return status, headers, msgspec.json.encode(reply)

    async with canned(without) as server:
        with pytest.raises(ValueError, match="the model lacks a dimension that has a weight"):
            await RewardSource(server.url, on_error=0.0).rewards_async([*ASKED])


async def test_what_comes_too_late_is_a_deadline() -> None:
    async with canned(Answering()) as server:
        source = RewardSource(server.url)
        await source.rewards_async([*ASKED])
        server.pause_s = 60
        with pytest.raises(NotScored, match=r"deadline: 2 of 2 responses: the server gave no answer within 0\.2 s"):
            await asyncio.to_thread(source.rewards, ASKED, within=0.2)


@pytest.mark.parametrize(
    "error",
    [
        NotScored("too_long", "it has 900 tokens"),
        Refused("overloaded", "later", True, 3.0, "/items/0"),
        Unreachable("http://127.0.0.1:1", "refused"),
        VersionChanged("another one", "sha256:a", None),
    ],
)
def test_an_error_comes_out_of_a_pools_process_as_it_was(error: Exception) -> None:
    """A pool whose process raises what cannot be unpickled is broken, and AReaL then takes 0."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


async def test_a_copy_shares_the_client_of_its_process() -> None:
    source = RewardSource("http://127.0.0.1:1", key="a", timeout=5.0)
    assert pickle.loads(pickle.dumps(source)).client is source.client  # noqa: S301
    assert RewardSource("http://127.0.0.1:1", key="b", timeout=5.0).client is not source.client


@pytest.mark.parametrize("on_error", ["zero", math.nan, math.inf, True, None])
def test_a_wrong_on_error_is_refused(on_error: Any) -> None:
    with pytest.raises(ValueError, match='it must be "raise", "retry" or a finite number'):
        RewardSource("http://127.0.0.1:1", on_error=on_error)


def test_options_beside_a_client_are_refused() -> None:
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(TypeError, match="has its own options already: give key"),
    ):
        RewardSource(client, key="a")


def test_a_configuration_names_its_server_and_its_patience_in_seconds() -> None:
    source = source_of({"url": "http://127.0.0.1:1", "patience": 7, "weights": {"accuracy": 1.0}})
    assert source.client._client._tries.budget.patience == Patience(seconds=7)
    with pytest.raises(ValueError, match="give it `url`"):
        source_of({"on_error": "raise"})
    with pytest.raises(TypeError, match="on_eror"):
        source_of({"url": "http://127.0.0.1:1", "on_eror": "raise"}).client  # noqa: B018


def test_functions_of_one_step_share_an_answer() -> None:
    asked: list[str] = []
    last: LastBatch[str, int] = LastBatch()

    def ask(batch: str) -> int:
        asked.append(batch)
        return len(asked)

    def answer(function: str, batch: str) -> int:
        return last.answer(function, lambda: batch, ask)

    assert [answer("a", "x"), answer("b", "x")] == [1, 1]
    assert answer("a", "x") == 2  # a step of the same batch
    assert answer("b", "y") == 3
    assert asked == ["x", "x", "y"]
