"""NeMo-RL's environment, with the configuration of its page."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from commands import Served
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
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trainer() -> Iterator[Child]:
    with child("real_nemo_rl.py") as trainer:
        yield trainer


def settings(served: Served, n: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(pasted("nemo_rl.md", "yaml", served, n))["env"]["medreward"]
    return found


def asked(responses: list[str], image: bytes | None = None) -> dict[str, Any]:
    about = {"question": QUESTION, "image": image and b64encode(image).decode()}
    user = {"role": "user", "content": chatml(QUESTION)}
    logs = [[user, {"role": "assistant", "content": response}] for response in responses]
    return {"logs": logs, "metadata": [about for _ in responses]}


def test_the_environment_gives_what_score_gives(trainer: Child, served: Served) -> None:
    image = new_image(50)
    before = counted(served, "medreward_image_encodes_total")
    found = trainer.call("step", settings=settings(served), **asked(RESPONSES, image))
    assert found["rewards"] == pytest.approx(rewards(served, RESPONSES, image), rel=1e-6)  # float32
    assert counted(served, "medreward_image_encodes_total") == before + 1
    assert found["terminateds"] == [1.0] * len(RESPONSES)
    assert trainer.call("is_an_actor")


def test_the_terms_of_the_reward_add_up_to_it(trainer: Child, served: Served) -> None:
    given = settings(served, 1)
    found = trainer.call("step", settings=given, **asked(RESPONSES))["rewards"]
    expected = results(served, RESPONSES, weights=given["weights"])
    logits = [result["logits"] for result in expected]
    assert found["reward/accuracy"] == pytest.approx([2 * six["accuracy"] for six in logits], rel=1e-6)
    assert found["reward/overall"] == pytest.approx([six["overall"] for six in logits], rel=1e-6)
    sums = [sum(terms) for terms in zip(*found.values(), strict=True)]
    assert sums == pytest.approx([result["reward"] for result in expected], rel=1e-5)


def test_a_rendered_template_is_no_question(trainer: Child, served: Served) -> None:
    given = asked(RESPONSES[:1]) | {"metadata": [{}]}
    with pytest.raises(Raised, match="the prompt is a rendered chat template"):
        trainer.call("step", settings=settings(served), **given)


def test_a_number_that_was_asked_for_stands_in_and_is_counted(trainer: Child, served: Served) -> None:
    rewards(served, RESPONSES[:1])
    given = settings(served) | {"on_error": -4.0}
    trainer.call("step", settings=given, **asked(RESPONSES))
    found = trainer.call("step", settings=given, **asked(RESPONSES, b"no image"))
    assert found["rewards"] == [-4.0] * len(RESPONSES)
    assert found["metrics"] == {"medreward/filled": len(RESPONSES)}
    shares = trainer.call("step", settings=settings(served, 1) | {"on_error": -4.0}, **asked(RESPONSES, b"no image"))
    assert [sum(terms) for terms in zip(*shares["rewards"].values(), strict=True)] == [-4.0] * len(RESPONSES)
