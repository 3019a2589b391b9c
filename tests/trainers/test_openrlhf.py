"""OpenRLHF's own client: the route by its URL, and the function of the page."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Served
from medreward.types import DIMENSIONS
from trainers.children import (
    QUESTION,
    RESPONSES,
    Child,
    Raised,
    chatml,
    child,
    counted,
    new_image,
    pasted,
    results,
    rewards,
    stored,
)
from trainers.killing import with_worker_killed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trainer() -> Iterator[Child]:
    with child("real_openrlhf.py") as trainer:
        yield trainer


def asked(responses: list[str], label: object) -> dict[str, object]:
    count = len(responses)
    queries = [chatml(QUESTION, response, image=True) for response in responses]
    return {"queries": queries, "prompts": [chatml(QUESTION, image=True)] * count, "labels": [label] * count}


def url(served: Served) -> str:
    return pasted("openrlhf.md", "", served).split()[-1]


@pytest.mark.parametrize("responses", [RESPONSES, RESPONSES[:1]])
def test_the_route_gives_what_score_gives(trainer: Child, served: Served, responses: list[str]) -> None:
    image = new_image(1)
    expected = results(served, responses, image)
    (reply,) = trainer.call("by_url", urls=[url(served)], **asked(responses, stored(served, image)))
    assert reply["rewards"] == [result["reward"] for result in expected]
    assert reply["scores"] == [result["scores"]["overall"] for result in expected]
    logs = {dimension: [result["logits"][dimension] for result in expected] for dimension in DIMENSIONS}
    assert reply["extra_logs"] == logs


def test_a_batch_of_nothing_is_nothing(trainer: Child, served: Served) -> None:
    assert trainer.call("by_url", urls=[url(served)], **asked([], None)) == []


def test_eight_calls_of_one_group_encode_its_image_once(trainer: Child, served: Served) -> None:
    label = stored(served, new_image(2))
    before = counted(served, "medreward_image_encodes_total")
    for n in range(8):
        trainer.call("by_url", urls=[url(served)], **asked([f"Finding {n}."], label))
    assert counted(served, "medreward_image_encodes_total") == before + 1


def function_file(served: Served, folder: Path, more: str = "") -> str:
    file = folder / "my_reward.py"
    file.write_text(pasted("openrlhf.md", "python", served).replace('8000"', f'8000"{more}').replace('")', f'"{more})'))
    return str(file)


def test_the_function_of_the_page_gives_what_score_gives(trainer: Child, served: Served, tmp_path: Path) -> None:
    image = new_image(3)
    scan = tmp_path / "scan.png"
    scan.write_bytes(image)
    label = json.dumps({"question": QUESTION, "image": str(scan)})
    replies = trainer.call("by_function", file=function_file(served, tmp_path), **asked(RESPONSES, label))
    expected = results(served, RESPONSES, image)
    assert [reply["rewards"] for reply in replies] == [[result["reward"]] for result in expected]
    assert [reply["scores"] for reply in replies] == [[result["scores"]["overall"]] for result in expected]
    assert replies[0]["extra_logs"] == {
        **{dimension: [expected[0]["logits"][dimension]] for dimension in DIMENSIONS},
        "filled": [0.0],
    }


def test_a_label_without_a_question_is_an_error_of_the_function(trainer: Child, served: Served, tmp_path: Path) -> None:
    with pytest.raises(Raised, match="ValueError: the label has no question"):
        trainer.call("by_function", file=function_file(served, tmp_path), **asked(RESPONSES[:1], "0" * 64))


def test_an_image_that_nobody_stored_is_no_number(trainer: Child, served: Served, tmp_path: Path) -> None:
    label = json.dumps({"question": QUESTION, "image": "0" * 64})
    with pytest.raises(Raised, match="NotScored: image_unknown: 1 of 1 responses"):
        trainer.call("by_function", file=function_file(served, tmp_path), **asked(RESPONSES[:1], label))


def test_a_number_that_was_asked_for_stands_in_and_is_told(trainer: Child, served: Served, tmp_path: Path) -> None:
    label = json.dumps({"question": QUESTION, "image": "0" * 64})
    rewards(served, RESPONSES[:1])
    file = function_file(served, tmp_path, ", on_error=-2.5")
    good = json.dumps({"question": QUESTION})
    ((first,), (second,)) = (
        trainer.call("by_function", file=file, **asked(RESPONSES[:1], given)) for given in (good, label)
    )
    assert first["rewards"] == rewards(served, RESPONSES[:1])
    assert second["rewards"] == [-2.5]
    assert second["extra_logs"]["filled"] == [1.0]
    assert "1 of 1 responses not scored: image_unknown 1; -2.5 stands in" in trainer.logged[0]


def test_a_killed_worker_costs_tries_and_no_reward(trainer: Child, victim: Served) -> None:
    expected = rewards(victim, RESPONSES[:1])
    given = asked(RESPONSES[:1], None)
    (reply,) = with_worker_killed(victim, lambda: trainer.call("by_url", urls=[url(victim)], **given))
    assert reply["rewards"] == expected


def test_a_key_travels_in_the_address(trainer: Child, locked: tuple[Served, Served], tmp_path: Path) -> None:
    opened, closed = locked
    (reply,) = trainer.call("by_url", urls=[url(opened)], **asked(RESPONSES[:1], None))
    assert reply["rewards"] == rewards(opened, RESPONSES[:1])
    with pytest.raises(Raised, match="RuntimeError: Request error for 5 times"):
        trainer.call("by_url", urls=[url(closed)], **asked(RESPONSES[:1], None))
    key = opened.url.split(":")[2].split("@")[0]
    label = json.dumps({"question": QUESTION})
    by_function = {"file": function_file(closed, tmp_path, f", key={key!r}"), **asked(RESPONSES[:1], label)}
    assert trainer.call("by_function", **by_function)[0]["rewards"] == reply["rewards"]
    by_function["file"] = function_file(closed, tmp_path)
    with pytest.raises(Raised, match="Refused: unauthenticated"):
        trainer.call("by_function", **by_function)
