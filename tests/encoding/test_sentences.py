"""Where sentences begin and end, and the text that is left without one."""

import pytest

from medreward.encoding.sentences import merged, split, without
from medreward.encoding.thinking import ThinkingTags


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["yes"],
        ["No.", "The lung is clear."],
        ["No.", "2 nodules are seen."],
        ["the lung is clear.", "there is no effusion."],
        ["Is it broken?", "yes!", "Wait... it is not."],
        ["A 3.5 cm nodule, e.g. a granuloma, lies in the lung.", "It measures 5 cm. in width."],
        ["Dr. J. Smith saw it (see Fig. 2).", "E. coli grew in specimen No. 3."],
        ["Hepatitis B.", "The spleen is normal in size, shape, etc. and it is smooth.", "Stones etc.", "None."],
        ["It was given at 5 p.m. daily.", "It ended at 5 p.m.", "The U.S. Task Force agrees."],
        ["This is MS.", "The DR.", "Ms. Lee has it."],
        ['He said "no."', "**Normal.**", "(None.)", "End"],
    ],
    ids=lambda expected: expected[0],
)
def test_sentences_of_a_paragraph(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected
    assert sentences(f"\n {' '.join(expected)} \t") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Findings:\n- Heart large.\n- No effusion", ["Findings:", "- Heart large.", "- No effusion"]),
        ("1. Lung.\n2. Heart. Large.\na) Both", ["1. Lung.", "2. Heart.", "Large.", "a) Both"]),
        ("A report that was\nwrapped by hand. It\ngoes on", ["A report that was\nwrapped by hand.", "It\ngoes on"]),
        ("first line\n\nsecond line", ["first line", "second line"]),
        ("Clear.\n---\n* Normal.\n***", ["Clear.", "---\n* Normal.\n***"]),
        ("Normal. 👍", ["Normal. 👍"]),
        ("肺部清晰。无胸腔积液。「是。」好", ["肺部清晰。", "无胸腔积液。", "「是。」", "好"]),
        ("क्या? हाँ। नहीं।", ["क्या?", "हाँ।", "नहीं।"]),
        (":", [":"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_sentences_of_other_texts(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_text_without_a_sentence_is_one_that_a_person_would_write() -> None:
    text = "One. Two.\n\nThree. "
    spans = split(text)
    assert [without(text, spans, place) for place in range(3)] == ["Two.\n\nThree. ", "One. Three. ", "One. Two. "]
    assert without(" Only one. ", split(" Only one. "), 0) == ""


def test_more_sentences_than_are_told_apart_become_even_runs_of_neighbours() -> None:
    text = "A1. B2. C3. D4. E5."
    assert [text[start:end] for start, end in merged(split(text), 2)] == ["A1. B2.", "C3. D4. E5."]
    assert merged(split(text), 5) == merged(split(text), 100) == split(text)
    assert merged([], 2) == []


def test_blanked_thoughts_keep_every_place() -> None:
    tags = ThinkingTags()
    text = "a <think>Two. Sentences.</think> is clear.<think>more"
    assert tags.blanked(text) == "a" + " " * 31 + " is clear." + " " * 11
    assert tags.blanked("before</think>yes") == " " * 14 + "yes"
    assert tags.blanked("none") == "none"
