"""What each sentence adds: through both doors, to the last bit, and at the cost of one group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from asking import check_problem, post
from cases import SCAN, Body, to_message
from keyring import KeysFile, bearer
from medreward.api.rest.reply_shapes import ScoreReply
from medreward.backends.base import Group, Logits
from medreward.backends.fake import FakeBackend, WordTokenizer
from medreward.engine import serving
from medreward.types import DIMENSIONS
from serving import Server, running

QUESTION = "Is there a fracture?"
SENTENCES = ["Yes.", "The 6th rib is broken, e.g. at 3.5 cm from the spine.", "No effusion 👍.", "The lung is clear."]
RESPONSE = f"  {SENTENCES[0]} {SENTENCES[1]}\n{SENTENCES[2]} {SENTENCES[3]} "
#: The response without each of its sentences, as docs/explain.md says.
WITHOUT = [
    f"  {SENTENCES[1]}\n{SENTENCES[2]} {SENTENCES[3]} ",
    f"  {SENTENCES[0]} {SENTENCES[2]} {SENTENCES[3]} ",
    f"  {SENTENCES[0]} {SENTENCES[1]}\n{SENTENCES[3]} ",
    f"  {SENTENCES[0]} {SENTENCES[1]}\n{SENTENCES[2]} ",
]
EXPLAIN = {"explain": "sentences"}


def asked(*responses: str, **options: str) -> Body:
    item = {"image": SCAN, "question": QUESTION, "responses": list(responses)}
    return {"items": [item], "weights": {"accuracy": 2, "overall": 0.3}, "options": options}


async def rest_results(server: Server, body: Body) -> list[dict[str, Any]]:
    reply = await post(server, body)
    assert reply.status_code == 200, reply.text
    ScoreReply.model_validate_json(reply.content)  # the shape that openapi.json shows
    results: list[dict[str, Any]] = reply.json()["results"]
    return results


def six(message: Any) -> dict[str, float | None]:
    return {name: getattr(message, name) if message.HasField(name) else None for name in DIMENSIONS}


async def both_explanations(server: Server, body: Body) -> list[list[dict[str, Any]]]:
    """What both doors say of each response, which is the same."""
    by_rest = [result["explain"] for result in await rest_results(server, body)]
    reply = await server.stub.Score(to_message(body))
    by_grpc = [
        [
            {"start": part.start, "end": part.end, "logits": six(part.logits), "reward": part.reward}
            for part in result.explain.sentences
        ]
        for result in reply.results
    ]
    assert by_rest == by_grpc
    return by_rest


async def test_a_contribution_is_the_difference_of_two_calls_to_the_last_bit(tiny: Server) -> None:
    parts, one = await both_explanations(tiny, asked(RESPONSE, "Yes.", **EXPLAIN))
    assert [RESPONSE[part["start"] : part["end"]] for part in parts] == SENTENCES
    apart = [(await rest_results(tiny, asked(text)))[0] for text in (RESPONSE, *WITHOUT, "Yes.", "")]
    whole, *less, alone, empty = apart
    for part, rest in zip(parts, less, strict=True):
        assert part["logits"] == {d: whole["logits"][d] - rest["logits"][d] for d in DIMENSIONS}
        assert part["reward"] == whole["reward"] - rest["reward"]
    assert [(part["start"], part["end"]) for part in one] == [(0, 4)]
    assert one[0]["reward"] == alone["reward"] - empty["reward"]


async def test_the_numbers_of_a_response_do_not_depend_on_its_explanation(tiny: Server) -> None:
    plain, explained = [await rest_results(tiny, asked(RESPONSE, **options)) for options in ({}, EXPLAIN)]
    (result,) = explained
    assert "explain" not in plain[0]
    del result["explain"], result["cached"], plain[0]["cached"]
    assert result == plain[0]


async def test_an_empty_response_has_no_sentence(fake: Server) -> None:
    assert await both_explanations(fake, asked("", " \n", **EXPLAIN)) == [[], []]


async def test_places_are_those_of_the_response_as_sent_and_stripped_thoughts_have_no_sentence(fake: Server) -> None:
    response = "<think>Hm. A rib?</think> Yes. The <think>6th?</think> rib is broken."
    (parts,) = await both_explanations(fake, asked(response, thinking="strip", **EXPLAIN))
    spans = [response[part["start"] : part["end"]] for part in parts]
    assert spans == ["Yes.", "The <think>6th?</think> rib is broken."]
    whole, less = await rest_results(fake, asked(response, "The  rib is broken.", thinking="strip"))
    assert parts[0]["logits"]["accuracy"] == whole["logits"]["accuracy"] - less["logits"]["accuracy"]
    (kept,) = await both_explanations(fake, asked(response, **EXPLAIN))
    assert len(kept) == 3


async def test_a_cut_response_has_no_explanation_and_its_neighbour_has_one(tiny: Server) -> None:
    body = asked("The lung is clear. " * 200, RESPONSE, too_long="cut_middle", **EXPLAIN)
    cut, whole = await rest_results(tiny, body)
    assert (cut["status"], cut["flags"]) == ("ok", ["cut_middle"])
    assert "explain" not in cut
    assert len(whole["explain"]) == len(SENTENCES)
    by_grpc = (await tiny.stub.Score(to_message(body))).results
    assert [result.HasField("explain") for result in by_grpc] == [False, True]


async def test_a_response_that_fails_leaves_the_explanation_of_its_neighbour(fake: Server) -> None:
    failed, explained = await rest_results(fake, asked("bad\x01. Worse.", RESPONSE, **EXPLAIN))
    assert failed["error"]["code"] == "bad_text"
    assert "explain" not in failed
    assert len(explained["explain"]) == len(SENTENCES)


async def test_more_sentences_than_the_limit_are_explained_in_runs() -> None:
    async with running(explain_sentences=2) as server:
        assert (await server.rest.get("/v1/limits")).json()["explain_sentences"] == 2
        (parts,) = await both_explanations(server, asked(RESPONSE, **EXPLAIN))
    runs = [RESPONSE[part["start"] : part["end"]] for part in parts]
    assert runs == [f"{SENTENCES[0]} {SENTENCES[1]}", f"{SENTENCES[2]} {SENTENCES[3]}"]


# what it costs


def value(server: Server, name: str, **labels: str) -> float:
    return server.engine.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_all_of_an_explanation_is_one_batch_one_image_and_one_prompt() -> None:
    async with running() as server:
        first = await rest_results(server, asked(RESPONSE, "No. None at all.", **EXPLAIN))
        assert value(server, "medreward_batch_items_count") == 1
        assert value(server, "medreward_batch_items_sum") == 1 + 4 + 1 + 2
        assert value(server, "medreward_image_encodes_total") == value(server, "medreward_prefix_runs_total") == 1
        # Only what was sent is counted as scored.
        assert value(server, "medreward_items_total", outcome="ok") == 2
        assert value(server, "medreward_score_count", dimension="overall") == 2
        assert value(server, "medreward_flags_total", flag="empty_response") == 0
        again = await rest_results(server, asked(RESPONSE, "No. None at all.", **EXPLAIN))
        assert value(server, "medreward_batch_items_count") == 1  # all of it came from the cache of scores
        assert server.engine.state()["cost_admitted"] == 0
    assert [result["cached"] for result in (*first, *again)] == [False, False, True, True]
    assert [result["explain"] for result in first] == [result["explain"] for result in again]


async def test_each_sentence_is_a_triple_to_a_quota(keys: KeysFile) -> None:
    key = keys.new(triples_per_second=0.5)  # five at once
    async with running(keys_file=keys.path) as server:
        explained = await post(server, asked(RESPONSE, **EXPLAIN), bearer(key))
        assert explained.status_code == 200
        refused = await post(server, asked("Yes."), bearer(key))
    check_problem(refused, 503, "quota_exceeded")  # as work that can wait gets it


# what may go wrong


class Knowing(FakeBackend):
    """Knows which answers say `wrong`, and has no number for those that do not say `needed`."""

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        wrong, needed = WordTokenizer().encode("wrong needed")
        return [
            np.array(
                [[[np.nan if needed not in ids else -float(wrong in ids)] * 6] for ids in group.answers], np.float32
            )
            if len(group.prompt) > 1
            else np.zeros((len(group.answers), 1, 6), np.float32)
            for group in groups
        ]


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "open_backend", lambda *_: Knowing())


@pytest.mark.usefixtures("knowing")
async def test_the_sentence_that_does_harm_has_the_lowest_contribution() -> None:
    async with running() as server:
        (result,) = await rest_results(server, asked("needed here. This is wrong . needed too.", **EXPLAIN))
    assert [part["reward"] for part in result["explain"]] == [0.0, pytest.approx(-2.3), 0.0]


@pytest.mark.usefixtures("knowing")
async def test_what_cannot_be_scored_without_a_sentence_is_null_with_its_reason() -> None:
    async with running() as server:
        body = asked("This is needed for it. All else is fine.", **EXPLAIN)
        (result,) = await rest_results(server, body)
        (message,) = (await server.stub.Score(to_message(body))).results
    assert result["status"] == "ok"
    bad, good = result["explain"]
    assert (bad["logits"], bad["reward"], bad["error"]["code"]) == (None, None, "non_finite_score")
    assert bad["error"]["field"] == "/items/0"
    assert good["reward"] == 0.0
    assert "error" not in good
    first = message.explain.sentences[0]
    assert (first.error.code, first.HasField("logits"), first.HasField("reward")) == ("non_finite_score", False, False)
