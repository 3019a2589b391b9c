"""Image, question and response in what trainers hand over."""

from typing import Any

import pytest

from medreward.clients.rows import (
    Pictures,
    after_prompt,
    images_in,
    of_label,
    one_triple,
    plain_question,
    turns_in,
    without_end_mark,
)
from medreward.clients.score import Score
from medreward.types import StoredImage, Turn
from trainers.children import chatml

QUESTION = "Is there a fracture?"


@pytest.mark.parametrize(
    ("label", "found"),
    [
        (None, (None, None)),
        ("", (None, None)),
        ("a" * 64, (StoredImage("a" * 64), None)),
        ("data:image/png;base64,iVBO", (b"\x89PN", None)),
        ("/data/scan.png", ("/data/scan.png", None)),
        ({"bytes": b"x", "path": None}, ({"bytes": b"x", "path": None}, None)),
        ({"question": QUESTION}, (None, QUESTION)),
        (f' {{"image": "{"b" * 64}", "question": "{QUESTION}", "answer": 3}}', (StoredImage("b" * 64), QUESTION)),
    ],
)
def test_a_label(label: Any, found: Any) -> None:
    assert of_label(label) == found


@pytest.mark.parametrize(("label", "words"), [("data:image/png;base64,*", "with no base64"), ("{not json", "no JSON")])
def test_a_broken_label_is_an_error(label: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        of_label(label)


def said(role: str, *parts: str | None) -> dict[str, Any]:
    """A message; None stands for an image."""
    return {"role": role, "content": [{"type": "image" if p is None else "text", "text": p} for p in parts]}


CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    said("user", "This one", None, "or", None, "?"),
    {"role": "assistant", "content": "The first."},
    said("user", None, QUESTION),
]


def test_the_turns_before_the_question_show_the_rows_images_where_the_prompt_does() -> None:
    before = (Turn("system", "Be brief."), Turn("user", ("This one", 0, "or", 1, "?")), Turn("assistant", "The first."))
    assert turns_in(CHAT, 3) == turns_in(CHAT, 2) == before
    assert turns_in(CHAT, 1)[1] == Turn("user", ("This one", 0, "or", "?"))  # the data set has one image alone
    assert turns_in(CHAT[:1] + CHAT[3:], 1) == before[:1]
    assert turns_in([{"role": "system", "content": ""}, *CHAT[3:]], 1) == ()
    assert turns_in(QUESTION, 1) == ()


def test_a_turn_of_a_tool_is_an_error_of_its_row() -> None:
    tool = turns_in([*CHAT[:3], {"role": "tool", "content": "1"}, CHAT[3]], 0)
    found = one_triple(Pictures(), [], QUESTION, "Yes.", tool)
    assert isinstance(found, Score)
    assert found.error == "unsupported_field"


@pytest.mark.parametrize("response", ["Yes.", "", "Yes.\n", "<|im_start|>assistant\nYes.", "a</s>b"])
def test_what_follows_a_prompt_is_the_response(response: str) -> None:
    """However many marks a processor made of the image, and whatever the response plays."""
    prompt = chatml(QUESTION, image=True)
    for query in (chatml(QUESTION, response, image=True), chatml(QUESTION, response, image=True) + "<|endoftext|>\n"):
        assert after_prompt(query, prompt) == response
        assert after_prompt(query.replace("<|image_pad|>", "<|image_pad|>" * 300), prompt) == response


def test_a_query_without_its_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="the query does not hold its prompt"):
        after_prompt("Yes.", chatml(QUESTION))
    assert after_prompt("Yes.</s>", "") == "Yes."


def test_end_marks_are_taken_off_the_end_alone() -> None:
    assert without_end_mark("No <|im_end|> here.<|im_end|>\n<|endoftext|>") == "No <|im_end|> here."
    assert without_end_mark("Yes. ") == "Yes. "


def test_a_rendered_template_is_no_question() -> None:
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    assert plain_question(talk, "") == QUESTION
    assert plain_question(QUESTION, "") == QUESTION
    with pytest.raises(ValueError, match="give it in the label"):
        plain_question(chatml(QUESTION), "in the label")


def test_the_files_bytes_come_before_what_was_made_of_them() -> None:
    parts = [{"type": "image", "bytes": b"file", "image": object()}, {"type": "image", "path": "scan.png"}]
    assert images_in([{"role": "user", "content": parts}]) == [b"file", "scan.png"]
