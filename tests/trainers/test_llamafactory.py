"""LLaMA-Factory's own client, which knows no retry: the route waits in its place."""

from collections.abc import Iterator
from struct import pack, unpack

import httpx
import pytest

from commands import Served
from medreward.clients.llamafactory import reward_model
from trainers.children import QUESTION, RESPONSES, Child, Raised, chatml, child, pasted, rewards
from trainers.killing import with_worker_killed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trainer() -> Iterator[Child]:
    with child("real_llamafactory.py") as trainer:
        yield trainer


def url(served: Served) -> str:
    found = pasted("llamafactory.md", "yaml", served).split()[-1]
    assert found == reward_model(served.url)
    return found


def single(numbers: list[float]) -> list[float]:
    """As a tensor of float32 holds them."""
    return [unpack("f", pack("f", number))[0] for number in numbers]


def test_the_route_gives_what_score_gives(trainer: Child, served: Served) -> None:
    messages = [chatml(QUESTION, response) for response in RESPONSES]
    assert trainer.call("rewards", url=url(served), messages=messages) == single(rewards(served, RESPONSES))


def test_a_long_answer_is_cut_only_where_that_was_asked_for(trainer: Child, served: Served) -> None:
    answer = "No effusion. " * 5000
    messages = [chatml(QUESTION, answer)]
    with pytest.raises(Raised, match="KeyError: 'scores'"):
        trainer.call("rewards", url=url(served), messages=messages)
    cut = rewards(served, [answer], options={"too_long": "cut_middle"})
    assert trainer.call("rewards", url=f"{url(served)}?too_long=cut_middle", messages=messages) == single(cut)


def test_a_killed_worker_is_waited_for(trainer: Child, victim: Served) -> None:
    expected = single(rewards(victim, RESPONSES))
    messages = [chatml(QUESTION, response) for response in RESPONSES]
    found = with_worker_killed(victim, lambda: trainer.call("rewards", url=url(victim), messages=messages))
    assert found == expected


def test_a_key_travels_in_the_address(trainer: Child, locked: tuple[Served, Served]) -> None:
    opened, closed = locked
    messages = [chatml(QUESTION, response) for response in RESPONSES]
    found = trainer.call("rewards", url=pasted("llamafactory.md", "yaml", opened).split()[-1], messages=messages)
    assert found == single(rewards(opened, RESPONSES))
    with pytest.raises(Raised, match="KeyError: 'scores'"):
        trainer.call("rewards", url=url(closed), messages=messages)


def test_the_maker_of_the_address() -> None:
    assert reward_model("http://host:8000/", key="a/b", on_error=-1) == (
        "http://x:a%2Fb@host:8000/v1/score/evaluation?on_error=-1"
    )
    assert httpx.URL(reward_model("http://host:8000", key="a/b")).password == "a/b"  # noqa: S105
    assert reward_model("http://host:8000", on_error=0.1234567).endswith("?on_error=0.1234567")  # to the last digit
    with pytest.raises(ValueError, match="not an address like http://host:8000"):
        reward_model("host:8000")
