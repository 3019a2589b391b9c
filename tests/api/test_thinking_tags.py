"""Tags of thoughts that a server knows beside the usual ones, by its setting."""

from typing import Any

import pytest
from pydantic import ValidationError

from medreward.settings import Settings
from serving import Server, running

OWN = "<plan> </plan>, [THINK] [/THINK]"


async def scored(server: Server, *responses: str) -> tuple[str, list[dict[str, Any]]]:
    item = {"image": None, "question": "q", "responses": responses}
    reply = await server.rest.post("/score", json={"items": [item], "options": {"thinking": "strip"}})
    body = reply.json()
    return body["model"]["fingerprint"], body["results"]


async def test_own_tags_are_stripped_and_are_part_of_the_fingerprint() -> None:
    response = "<plan>first</plan>[THINK]then[/THINK]<think>and</think>yes"
    async with running(thinking_tags=OWN) as server:
        fingerprint, (thought, plain) = await scored(server, response, "yes")
    async with running() as server:
        usual, (kept, _) = await scored(server, response, "yes")
    assert thought["logits"] == plain["logits"] != kept["logits"]
    assert "thinking_stripped" in thought["flags"]
    assert "thinking_stripped" not in plain["flags"]
    assert fingerprint != usual


@pytest.mark.parametrize(
    ("written", "says"),
    [("<plan>", "OPEN CLOSE"), ("<a> </a> <b>", "OPEN CLOSE"), ("<think> </x>", "a known one"), ("<a> <a>", "twice")],
)
def test_tags_that_cannot_be_meant_stop_the_start(written: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(thinking_tags=written)


def test_no_tags_are_none() -> None:
    assert Settings(thinking_tags="").thinking_tags == ()
