"""Steps and thoughts beside an answer: through both doors, each the number of a call of its own to the last bit."""

from typing import Any

import pytest

from asking import check_problem, post, refused
from cases import SCAN, Body, to_message
from keyring import KeysFile, bearer
from medreward.api.rest.reply_shapes import ScoreReply
from medreward.types import DIMENSIONS
from serving import Server, running

QUESTION = "Is there a fracture?"
PARAGRAPHS = ["First the ribs. The 6th is broken.", "Then the lung 👍: it is clear.", "So yes."]
RESPONSE = f"  {PARAGRAPHS[0]}\n\n{PARAGRAPHS[1]}\r\n \r\n{PARAGRAPHS[2]} "
THOUGHT = f"<think>Hm. A rib?\n\nTwo?</think> {PARAGRAPHS[0]} <think>6th?</think> {PARAGRAPHS[2]}"


def asked(*responses: str, **options: Any) -> Body:
    item = {"image": SCAN, "question": QUESTION, "responses": list(responses)}
    return {"items": [item], "weights": {"accuracy": 2, "overall": 0.3}, "options": options}


async def results(server: Server, body: Body) -> list[dict[str, Any]]:
    """What both doors say of each response, which is the same."""
    reply = await post(server, body)
    assert reply.status_code == 200, reply.text
    ScoreReply.model_validate_json(reply.content)  # the shape that openapi.json shows
    by_rest: list[dict[str, Any]] = reply.json()["results"]
    messages = (await server.stub.Score(to_message(body))).results
    for result, message in zip(by_rest, messages, strict=True):
        assert message.HasField("steps") is ("steps" in result)
        by_grpc = [{"end": step.end, "logits": six(step.logits), "reward": step.reward} for step in message.steps.steps]
        assert result.get("steps", []) == by_grpc
        aside = result.get("without_thinking")
        if aside:
            numbers = {name: six(getattr(message.without_thinking, name)) for name in ("scores", "logits")}
            assert {name: aside[name] for name in numbers} == numbers
            assert aside["reward"] == message.without_thinking.reward
            assert aside["flags"] == list(message.without_thinking.flags)
    return by_rest


def six(message: Any) -> dict[str, float | None]:
    return {name: getattr(message, name) if message.HasField(name) else None for name in DIMENSIONS}


async def alone(server: Server, text: str, **options: str) -> dict[str, Any]:
    """What is answered to a text by itself."""
    (result,) = await results(server, asked(text, **options))
    return {"logits": result["logits"], "reward": result["reward"]}


SENTENCE_ENDS = [RESPONSE.index(end) + len(end) for end in ("ribs.", "broken.", "clear.", "yes.")]


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        ("sentences", SENTENCE_ENDS),
        ("paragraphs", SENTENCE_ENDS[1:]),
        ([0, 9, 50, len(RESPONSE)], [0, 9, 50, len(RESPONSE)]),
    ],
)
async def test_a_step_has_the_numbers_of_the_cut_text_to_the_last_bit(
    tiny: Server, steps: str | list[int], ends: list[int]
) -> None:
    (result,) = await results(tiny, asked(RESPONSE, steps=steps))
    assert [step["end"] for step in result["steps"]] == ends
    for step in result["steps"]:
        assert step == {"end": step["end"], **await alone(tiny, RESPONSE[: step["end"]])}


async def test_steps_change_nothing_of_the_result_nor_of_its_explanation(tiny: Server) -> None:
    both = (await results(tiny, asked(RESPONSE, "No. None.", steps="sentences", explain="sentences")))[0]
    explained = (await results(tiny, asked(RESPONSE, explain="sentences")))[0]
    stepped = (await results(tiny, asked(RESPONSE, steps="sentences")))[0]
    assert both["explain"] == explained["explain"]
    assert both["steps"] == stepped["steps"]
    plain = await alone(tiny, RESPONSE)
    assert plain == {name: both[name] for name in plain}


async def test_an_empty_response_has_no_step(fake: Server) -> None:
    assert [result["steps"] for result in await results(fake, asked("", " \n", steps="paragraphs"))] == [[], []]


async def test_over_the_limit_steps_of_a_rule_are_runs_of_neighbours() -> None:
    async with running(response_steps=2) as server:
        assert (await server.rest.get("/v1/limits")).json()["response_steps"] == 2
        (result,) = await results(server, asked(RESPONSE, steps="sentences"))
        refused = await post(server, asked(RESPONSE, steps=[1, 2, 3]))
    assert [step["end"] for step in result["steps"]] == [SENTENCE_ENDS[1], SENTENCE_ENDS[3]]
    check_problem(refused, 413, "too_many", "/options/steps")


# thoughts


async def test_steps_lie_outside_of_stripped_thoughts_and_are_cut_and_then_stripped(fake: Server) -> None:
    (result,) = await results(fake, asked(THOUGHT, steps="sentences", thinking="strip"))
    ends = [step["end"] for step in result["steps"]]
    assert ends == [THOUGHT.index(end) + len(end) for end in ("ribs.", "broken.", "yes.")]
    for step in result["steps"]:
        assert step == {"end": step["end"], **await alone(fake, THOUGHT[: step["end"]], thinking="strip")}
    (kept,) = await results(fake, asked(THOUGHT, steps="sentences"))
    assert len(kept["steps"]) == 5


@pytest.mark.parametrize("text", ["<think>Hm", "<think>Hm.</think> Yes. <think>6"])
async def test_a_step_within_stripped_thoughts_is_refused_and_one_behind_them_is_not(fake: Server, text: str) -> None:
    within = len(text)
    (failed,) = await results(fake, asked(THOUGHT.replace("First", "Yes. First"), steps=[0, 3], thinking="strip"))
    assert (failed["error"]["code"], failed["error"]["field"]) == ("bad_steps", "/options/steps/1")
    (scored,) = await results(fake, asked(f"{text}.</think> Yes.", steps=[within + 9], thinking="strip"))
    assert scored["status"] == "ok"
    (kept,) = await results(fake, asked(THOUGHT, steps=[3]))
    assert kept["status"] == "ok"


async def test_with_both_the_response_has_its_numbers_and_those_without_its_thoughts(tiny: Server) -> None:
    thought, plain = await results(tiny, asked(THOUGHT, "Yes.", thinking="both"))
    kept, stripped = [await results(tiny, asked(THOUGHT, thinking=thinking)) for thinking in ("keep", "strip")]
    assert {**thought, "without_thinking": ..., "cached": ...} == {**kept[0], "without_thinking": ..., "cached": ...}
    assert thought["without_thinking"] == {name: stripped[0][name] for name in thought["without_thinking"]}
    assert thought["without_thinking"]["flags"] == ["thinking_stripped"]
    assert plain["without_thinking"] == {name: plain[name] for name in plain["without_thinking"]}


async def test_without_thoughts_a_response_may_be_scored_that_is_cut_with_them(tiny: Server) -> None:
    long = f"<think>{'The lung is clear. ' * 300}</think> Yes. It is."
    body = asked(long, RESPONSE, thinking="both", too_long="cut_middle", steps="sentences")
    cut, whole = await results(tiny, body)
    assert cut["flags"] == ["cut_middle"]
    assert "steps" not in cut  # its beginning is not all that was scored
    assert cut["without_thinking"]["flags"] == ["thinking_stripped"]
    assert len(whole["steps"]) == len(SENTENCE_ENDS)


# what it costs, and what is refused


async def test_steps_are_one_batch_and_each_is_a_triple_to_a_quota(keys: KeysFile) -> None:
    key = keys.new(triples_per_second=0.5)  # five at once
    async with running(keys_file=keys.path) as server:
        reply = await post(server, asked(RESPONSE, steps="sentences"), bearer(key))
        assert reply.status_code == 200
        batches = server.engine.metrics.registry.get_sample_value
        assert (batches("medreward_batch_items_count"), batches("medreward_batch_items_sum")) == (
            1,
            4,
        )  # the last is all of it
        assert batches("medreward_items_total", {"outcome": "ok"}) == 1  # what was sent is counted as scored
        check_problem(await post(server, asked("Yes."), bearer(key)), 503, "quota_exceeded")


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ([], "/options/steps"),
        (3, "/options/steps"),
        (None, "/options/steps"),
        ({"ends": [1]}, "/options/steps"),
        ("\ud800", "/options/steps"),
        ([1, "2"], "/options/steps/1"),
        ([1.0], "/options/steps/0"),
        ([True], "/options/steps/0"),
        ([-1], "/options/steps/0"),
        ([2, 1], "/options/steps/1"),
    ],
)
async def test_what_is_no_list_of_rising_ends_is_refused(fake: Server, steps: object, field: str) -> None:
    body = {"question": "q", "response": RESPONSE, "options": {"steps": steps}}
    check_problem(await post(fake, body), 422, "invalid_field", field)


async def test_a_message_that_gives_steps_twice_is_refused(fake: Server) -> None:
    message = to_message(asked(RESPONSE, steps=[1]))
    message.options.steps = "sentences"
    refusal = await refused(fake.stub.Score(message))
    assert (refusal.code, refusal.field) == ("invalid_field", "/options/steps")


async def test_what_gives_one_number_takes_no_thinking_both_ways(fake: Server) -> None:
    body = {"question": "q", "response": THOUGHT, "options": {"thinking": "both"}}
    check_problem(await fake.rest.post("/v1/screen", json=body), 422, "invalid_field", "/options/thinking")
    trainer = {"query": ["q r"], "prompts": ["q "], "labels": [None]}
    check_problem(await fake.rest.post("/get_reward?thinking=both", json=trainer), 422, "invalid_field", "thinking")


async def test_a_message_of_many_steps_is_refused_by_their_count(fake: Server) -> None:
    refusal = await refused(fake.stub.Score(to_message(asked(RESPONSE, steps=[*range(100_000)]))))
    assert (refusal.code, refusal.field) == ("too_many", "/options/steps")
