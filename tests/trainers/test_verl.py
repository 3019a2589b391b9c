"""verl's own worker: the manager of the page, and the route that stands in for its discriminative reward model."""

import math
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import Served
from medreward.types import DIMENSIONS
from trainers.children import (
    PAGES,
    QUESTION,
    RESPONSES,
    Child,
    Raised,
    child,
    counted,
    new_image,
    pasted,
    results,
    rewards,
)
from trainers.killing import with_worker_killed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trainer() -> Iterator[Child]:
    with child("real_verl.py") as trainer:
        yield trainer


def config(served: Served, *more: str) -> list[str]:
    return [*pasted("verl.md", "", served).split(), *more]


def stand_in() -> list[str]:
    """The page's arguments for the discriminative reward model."""
    page = (PAGES / "verl.md").read_text("utf-8")
    lines = re.findall(r"`(reward\.reward_model\.\S+=\S+)`", page)
    assert len(lines) == 3
    return lines


def rows(responses: list[str], image: bytes | None = None, kind: str = "") -> list[dict[str, Any]]:
    encoded = image and b64encode(image).decode()
    return [{"question": QUESTION, "response": text, "image": encoded, "kind": kind} for text in responses]


@pytest.mark.parametrize("kind", ["bytes", "path", "pil", None])
def test_the_manager_gives_what_score_gives(trainer: Child, served: Served, kind: str | None, tmp_path: Path) -> None:
    image = new_image(10) if kind else None
    found = trainer.call("manager", lines=config(served), rows=rows(RESPONSES, image, kind or ""), folder=str(tmp_path))
    expected = results(served, RESPONSES, image)
    assert [answer["reward_score"] for answer in found["answers"]] == [result["reward"] for result in expected]
    assert [answer["reward_extra_info"] for answer in found["answers"]] == [
        {**{dimension: result["logits"][dimension] for dimension in DIMENSIONS}, "filled": 0.0} for result in expected
    ]
    assert found["sums"] == pytest.approx([result["reward"] for result in expected])  # float32


def test_a_group_costs_one_upload_and_one_encode(trainer: Child, served: Served, tmp_path: Path) -> None:
    metrics = ("medreward_image_encodes_total", 'medreward_requests_total{code="201",lane="bulk",route="/v1/images"}')
    before = [counted(served, metric) for metric in metrics]
    group = rows([f"Finding {n}." for n in range(8)], new_image(11), "bytes")
    trainer.call("manager", lines=config(served), rows=group, folder=str(tmp_path))
    after = [counted(served, metric) for metric in metrics]
    assert after[0] == before[0] + 1
    assert after[1] == before[1] + 1


def test_a_row_that_fails_stops_the_run(trainer: Child, served: Served, tmp_path: Path) -> None:
    bad = rows(RESPONSES[:1], b"no image", "path")
    with pytest.raises(Raised, match="NotScored: image_"):
        trainer.call("manager", lines=config(served), rows=bad, folder=str(tmp_path))


def test_a_filled_row_has_the_same_keys_and_is_told(trainer: Child, served: Served, tmp_path: Path) -> None:
    lines = [line for line in config(served) if "on_error" not in line]
    lines.append("+reward.reward_kwargs.on_error=-3")
    mixed = [*rows(RESPONSES[:1]), *rows(RESPONSES[:1], b"no image", "path")]
    good, bad = trainer.call("manager", lines=lines, rows=mixed, folder=str(tmp_path))["answers"]
    assert good["reward_score"] == rewards(served, RESPONSES[:1])[0]
    assert bad == {"reward_score": -3.0, "reward_extra_info": {**dict.fromkeys(DIMENSIONS, -3.0), "filled": 1.0}}
    assert [*good["reward_extra_info"]] == [*bad["reward_extra_info"]]
    assert "1 of 1 responses not scored" in trainer.logged[0]


def test_gdpo_reads_the_keys(trainer: Child, served: Served, tmp_path: Path) -> None:
    answers = trainer.call("manager", lines=config(served), rows=rows(RESPONSES), folder=str(tmp_path))["answers"]
    algorithm = pasted("verl.md", "", served, 1).split()
    advantages = trainer.call("gdpo", lines=algorithm, answers=answers)
    assert len(set(advantages)) == len(RESPONSES)
    assert all(map(math.isfinite, advantages))


def test_the_route_gives_what_score_gives(trainer: Child, served: Served) -> None:
    address = served.url.removeprefix("http://")
    assert trainer.call("disrm", lines=stand_in(), address=address, rows=rows(RESPONSES)) == rewards(served, RESPONSES)


@pytest.mark.parametrize("way", ["manager", "disrm"])
def test_a_killed_worker_costs_tries_and_no_reward(trainer: Child, victim: Served, way: str, tmp_path: Path) -> None:
    expected = rewards(victim, RESPONSES)
    given: dict[str, Any] = {"rows": rows(RESPONSES)}
    if way == "manager":
        given |= {"lines": config(victim), "folder": str(tmp_path)}
    else:
        given |= {"lines": stand_in(), "address": victim.url.removeprefix("http://")}
    found = with_worker_killed(victim, lambda: trainer.call(way, **given))
    scores = [answer["reward_score"] for answer in found["answers"]] if way == "manager" else found
    assert scores == expected


def test_a_key_travels_in_the_address_and_in_the_configuration(
    trainer: Child, locked: tuple[Served, Served], tmp_path: Path
) -> None:
    opened, closed = locked
    expected = rewards(opened, RESPONSES)
    assert (
        trainer.call("disrm", lines=stand_in(), address=opened.url.removeprefix("http://"), rows=rows(RESPONSES))
        == expected
    )
    with pytest.raises(Raised, match="ClientResponseError: 401"):
        trainer.call("disrm", lines=stand_in(), address=closed.url.removeprefix("http://"), rows=rows(RESPONSES[:1]))
    key = opened.url.split(":")[2].split("@")[0]
    lines = config(closed, f"+reward.reward_kwargs.key={key}")
    found = trainer.call("manager", lines=lines, rows=rows(RESPONSES), folder=str(tmp_path))
    assert [answer["reward_score"] for answer in found["answers"]] == expected
    with pytest.raises(Raised, match="Refused: unauthenticated"):
        trainer.call("manager", lines=config(closed), rows=rows(RESPONSES), folder=str(tmp_path))
