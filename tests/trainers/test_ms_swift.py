"""ms-swift's own computation of rewards, with the plugins of the page."""

import math
from base64 import b64encode
from collections.abc import Iterator

import pytest

from commands import Served
from medreward.types import DIMENSIONS
from trainers.children import QUESTION, RESPONSES, Child, Raised, child, counted, new_image, pasted, results, rewards
from trainers.killing import with_worker_killed

pytestmark = pytest.mark.slow

SIX = [f"medreward_{dimension}" for dimension in DIMENSIONS]


@pytest.fixture(scope="module")
def trainer() -> Iterator[Child]:
    with child("real_ms_swift.py") as trainer:
        yield trainer


def plugin(served: Served, n: int = 0, more: str = "") -> str:
    return pasted("ms_swift.md", "python", served, n).replace(f'{served.url}"', f'{served.url}"{more}')


def asked(responses: list[str], image: bytes | None = None) -> dict[str, object]:
    encoded = None if image is None else b64encode(image).decode()
    return {"question": QUESTION, "responses": responses, "image": encoded}


@pytest.mark.parametrize("more", ["", ", asynchronous=True"])
def test_the_plugin_gives_what_score_gives(trainer: Child, served: Served, more: str) -> None:
    image = new_image(20)
    trainer.call("plug_in", plugin=plugin(served, more=more), names=["medreward"])
    found = trainer.call("rewards", **asked(RESPONSES, image))
    assert [row[0] for row in found] == pytest.approx(rewards(served, RESPONSES, image), rel=1e-6)  # float32


@pytest.mark.parametrize("more", ["", ", asynchronous=True"])
def test_six_functions_share_one_call_one_upload_and_one_encode(trainer: Child, served: Served, more: str) -> None:
    image = new_image(22 if more else 21)
    metrics = (
        'medreward_requests_total{code="200",lane="bulk",route="/score"}',
        'medreward_requests_total{code="201",lane="bulk",route="/v1/images"}',
        "medreward_image_encodes_total",
    )
    before = [counted(served, metric) for metric in metrics]
    trainer.call("plug_in", plugin=plugin(served, 1, more), names=SIX)
    found = trainer.call("rewards", **asked(RESPONSES, image))
    assert [counted(served, metric) for metric in metrics] == [count + 1 for count in before]
    expected = [
        [result["logits"][dimension] for dimension in DIMENSIONS] for result in results(served, RESPONSES, image)
    ]
    assert found == [pytest.approx(row, rel=1e-6) for row in expected]


def test_what_cannot_be_scored_stops_the_run(trainer: Child, served: Served) -> None:
    trainer.call("plug_in", plugin=plugin(served), names=["medreward"])
    with pytest.raises(Raised, match="NotScored: image_"):
        trainer.call("rewards", **asked(RESPONSES, b"no image"))


def test_a_number_that_was_asked_for_stands_in_and_is_told(trainer: Child, served: Served) -> None:
    trainer.call("plug_in", plugin=plugin(served, more=", on_error=-1.5"), names=["medreward"])
    assert not any(math.isnan(row[0]) for row in trainer.call("rewards", **asked(RESPONSES)))
    assert trainer.call("rewards", **asked(RESPONSES, b"no image")) == [[-1.5]] * len(RESPONSES)
    assert "-1.5 stands in for their rewards (4 so far)" in trainer.logged[0]


def test_a_killed_worker_costs_tries_and_no_reward(trainer: Child, victim: Served) -> None:
    expected = rewards(victim, RESPONSES)
    trainer.call("plug_in", plugin=plugin(victim), names=["medreward"])
    found = with_worker_killed(victim, lambda: trainer.call("rewards", **asked(RESPONSES)))
    assert [row[0] for row in found] == pytest.approx(expected, rel=1e-6)
