"""AReaL's own wrapper, which takes 15 s without an answer for a reward of 0."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import Served
from medreward.clients import NotScored, areal
from trainers.children import QUESTION, RESPONSES, Child, Raised, child, new_image, pasted, rewards
from trainers.killing import with_worker_killed

pytestmark = pytest.mark.slow

Ask = Callable[..., list[float]]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="module")
def trainer(modules: Path) -> Iterator[Child]:
    with child("real_areal.py", modules) as trainer:
        yield trainer


@pytest.fixture
def ask(trainer: Child, modules: Path) -> Ask:
    def ask(served: Served, name: str, image: bytes | None = None, more: str = "") -> list[float]:
        page = pasted("areal.md", "python", served)
        (modules / f"{name}.py").write_text(page.replace(f'{served.url}"', f'{served.url}"{more}'))
        encoded = None if image is None else b64encode(image).decode()
        found: list[float] = trainer.call("rewards", module=name, question=QUESTION, responses=RESPONSES, image=encoded)
        return found

    return ask


def test_the_function_of_the_page_gives_what_score_gives(ask: Ask, served: Served) -> None:
    image = new_image(30)
    assert ask(served, "of_the_page", image) == rewards(served, RESPONSES, image)


def test_a_killed_worker_costs_tries_and_no_reward(ask: Ask, victim: Served) -> None:
    expected = rewards(victim, RESPONSES)
    assert with_worker_killed(victim, lambda: ask(victim, "killed")) == expected


def test_what_cannot_be_scored_is_an_error_and_not_0(ask: Ask, served: Served) -> None:
    with pytest.raises(Raised, match="NotScored: image_"):
        ask(served, "bad_image", b"no image")


def test_it_raises_before_the_trainer_would_take_0(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here without the wrapper: its four tries would take a minute."""
    assert areal.WITHIN_S < 15
    function = areal.RewardFunction(served.url)
    assert function("", "Yes.", [], [], question=QUESTION) == rewards(served, ["Yes."])[0]
    monkeypatch.setattr(areal, "WITHIN_S", 0.001)
    with pytest.raises(NotScored, match=r"deadline: 1 of 1 responses: the server gave no answer within 0\.001 s"):
        function("", "No, and this was never asked before.", [], [], question=QUESTION)
