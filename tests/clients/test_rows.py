"""Image, question and response in what trainers hand over."""

from typing import Any

import pytest

from medreward.clients.rows import after_prompt, images_in, of_label, plain_question, without_end_mark
from medreward.types import StoredImage
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
