"""Texts with chat markup, as each family of models writes it, taken apart; responses that try to move a boundary."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medreward.api.compat.markup import ENDS, Parts, apart, apart_after, without_ends, without_pads
from medreward.types import Turn

QUESTION = "Is there a fracture < 2 mm of the [left] rib?"
ANSWER = "No, <b>none</b> [of them].\n\nAll ribs are intact."


@dataclass(frozen=True)
class Family:
    """What opens and closes a turn of each role, and what the text begins with."""

    name: str
    begin: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    end: str

    def prompt(self, *texts: str, system: str = "") -> str:
        """User and assistant take turns; the last is the user's, and the assistant's is open."""
        turns = [(self.system[0], system, self.system[1])] if system else []
        for i, text in enumerate(texts):
            opens, closes = self.assistant if i % 2 else self.user
            turns.append((opens, text, closes))
        return self.begin + "".join(map("".join, turns)) + self.assistant[0]


def alike(name: str, begin: str, opens: str, closes: str, end: str, assistant: str = "assistant") -> Family:
    system, user, last = [(opens.format(role), closes) for role in ("system", "user", assistant)]
    return Family(name, begin, system, user, last, end)


FAMILIES = [
    alike("Qwen", "", "<|im_start|>{}\n", "<|im_end|>\n", "<|im_end|>\n"),
    alike("InternVL", "<s>", "<|im_start|>{}\n", "<|im_end|>", "<|im_end|>"),
    alike(
        "Llama 3",
        "<|begin_of_text|>",
        "<|start_header_id|>{}<|end_header_id|>\n\n",
        "<|eot_id|>",
        "<|eot_id|>",
    ),
    alike("Gemma", "<bos>", "<start_of_turn>{}\n", "<end_of_turn>\n", "<end_of_turn>\n", "model"),
    Family("Mistral 7", "<s>", ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), ("[INST]", ""), ("[/INST]", "</s>"), "</s>"),
    Family("Mistral 1", "<s>", ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), ("[INST] ", " "), ("[/INST]", "</s>"), "</s>"),
]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@each_family
@pytest.mark.parametrize("system", ["", "You are a helpful radiologist."])
def test_a_turn_is_taken_apart(family: Family, system: str) -> None:
    prompt = family.prompt(QUESTION, system=system)
    text = prompt + ANSWER + family.end
    before = (Turn("system", system),) if system else ()
    assert apart(text) == apart(text, len(prompt)) == apart_after(prompt, text) == Parts(QUESTION, ANSWER, before)


@each_family
def test_earlier_turns_are_history_where_the_prompt_is_known(family: Family) -> None:
    prompt = family.prompt("Which plane?", "Axial.", QUESTION)
    history = (Turn("user", "Which plane?" + (" " if family.name == "Mistral 1" else "")), Turn("assistant", "Axial."))
    assert apart_after(prompt, prompt + ANSWER + family.end) == Parts(QUESTION, ANSWER, history)


@each_family
def test_a_text_alone_with_several_turns_keeps_its_first_question_and_says_so(family: Family) -> None:
    text = family.prompt(QUESTION, "Axial.", "And now?") + ANSWER + family.end
    parts = apart(text)
    assert (parts.question, parts.history, parts.is_raw) == (QUESTION, (), True)
    assert parts.response.startswith("Axial.")
    assert parts.response.endswith(ANSWER)


@each_family
def test_a_prompt_without_the_assistants_header(family: Family) -> None:
    opens = family.assistant[0]
    prompt = family.prompt(QUESTION).removesuffix(opens)
    for query in (prompt + ANSWER, prompt + opens + ANSWER + family.end):
        assert apart_after(prompt, query) == Parts(QUESTION, ANSWER)


def test_what_the_prompt_puts_into_the_assistants_turn_is_part_of_the_response() -> None:
    prompt = FAMILIES[0].prompt(QUESTION) + "<think>\n"
    assert apart_after(prompt, f"{prompt}hm</think>No.<|im_end|>") == Parts(QUESTION, "<think>\nhm</think>No.")


@pytest.mark.parametrize(
    "pads",
    [
        "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>",
        "<image>\n",
        "<img><IMG_CONTEXT><IMG_CONTEXT></img>\n",
        "<|image|>",
        "[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]",
        "<start_of_image>",
        "<start_of_image><image_soft_token><image_soft_token><end_of_image>\n\n",
    ],
)
@each_family
def test_placeholders_of_images_are_not_part_of_the_question(family: Family, pads: str) -> None:
    prompt = family.prompt(pads + QUESTION)
    assert apart(prompt + ANSWER) == apart_after(prompt, prompt + ANSWER) == Parts(QUESTION, ANSWER)


def test_placeholders_that_were_multiplied_do_not_hide_the_prompt() -> None:
    one, many = (f"<|vision_start|>{'<|image_pad|>' * n}<|vision_end|>" for n in (1, 64))
    prompt, shown = (FAMILIES[0].prompt("Which plane?", "Axial.", pads + QUESTION) for pads in (one, many))
    assert apart_after(prompt, shown + ANSWER).question == QUESTION
    assert apart_after(prompt, shown + ANSWER).history == (Turn("user", "Which plane?"), Turn("assistant", "Axial."))


def test_a_first_token_that_only_one_of_the_two_has() -> None:
    llama = FAMILIES[2]
    prompt = llama.prompt(QUESTION)
    bare = prompt.removeprefix(llama.begin)
    for written, query in ((bare, prompt), (prompt, llama.begin + prompt), (prompt, bare)):
        assert apart_after(written, query + ANSWER) == Parts(QUESTION, ANSWER)


def test_padding_on_either_side() -> None:
    qwen = FAMILIES[0]
    text = "<|endoftext|>" * 5 + qwen.prompt(QUESTION) + ANSWER + qwen.end + "<|endoftext|>" * 5
    assert apart(text) == Parts(QUESTION, ANSWER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is this?\nAn X-ray.",
        "<|user|>\nWhat is this?<|end|>\n<|assistant|>\nAn X-ray.",
        "Look: <|im_start|>user\nWhat is this?<|im_end|>\n<|im_start|>assistant\nAn X-ray.",
        "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>user\nis this?<|im_end|>\n<|im_start|>assistant\nAn X-ray.",
        "<|im_start|>user\nWhat is this?\n<|im_start|>assistant\nAn X-ray.",
        "<|im_start|>assistant\nAn X-ray.",
        "<|im_start|>tool\n5<|im_end|>\n<|im_start|>assistant\nAn X-ray.",
        "[INST] What is this?",
    ],
)
def test_what_cannot_be_taken_apart_is_raw_and_whole(text: str) -> None:
    assert apart(text) == Parts("", text, is_raw=True)


def test_a_plain_prompt_is_the_question_and_raw() -> None:
    assert apart_after("What is this?", "What is this? An X-ray.</s>") == Parts("What is this?", " An X-ray.", (), True)


def test_a_query_that_does_not_begin_with_its_prompt_is_taken_apart_by_itself() -> None:
    text = FAMILIES[0].prompt(QUESTION) + ANSWER
    assert apart_after("something else", text) == apart_after("", text) == Parts(QUESTION, ANSWER)


# the policy as the worst user

PIECES = [
    *ENDS,
    *(part for family in FAMILIES for part in (family.begin, *family.system, *family.user, *family.assistant)),
    "<think>",
    "</think>",
    "<image>",
    "<|image_pad|>",
    "user",
    "assistant\n",
    "fake question",
    " ",
    "\n",
]
hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)
letters = st.characters(exclude_characters="<[", exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"])
plain = st.text(letters, min_size=1, max_size=9)
families = st.sampled_from(FAMILIES)


def as_scored(family: Family, response: str) -> str:
    """Mistral's header may be followed by a space."""
    return without_ends(response.removeprefix(" ") if family.name.startswith("Mistral") else response)


@given(family=families, question=plain, response=hostile)
def test_no_response_changes_the_question(family: Family, question: str, response: str) -> None:
    prompt = family.prompt(question)
    known, alone = apart(prompt + response, len(prompt)), apart(prompt + response)
    assert (known.question, known.response, known.history) == (question, as_scored(family, response), ())
    assert (alone.question, alone.response, alone.history) == (question, as_scored(family, response), ())


@given(family=families, questions=st.lists(plain, min_size=3, max_size=3), response=hostile)
def test_no_response_changes_the_history(family: Family, questions: Sequence[str], response: str) -> None:
    prompt = family.prompt(*questions)
    without = apart_after(prompt, prompt)
    parts = apart_after(prompt, prompt + response)
    assert (parts.question, parts.history) == (without.question, without.history)
    assert len(parts.history) == 2


@given(prompt=hostile, response=hostile, other=hostile)
def test_whatever_the_prompt_is_its_question_is_the_same_for_all_responses(
    prompt: str, response: str, other: str
) -> None:
    one, two = apart(prompt + response, len(prompt)), apart(prompt + other, len(prompt))
    assert (one.question, one.history, one.is_raw) == (two.question, two.history, two.is_raw)


@given(text=hostile)
def test_ends_are_taken_off_the_end_alone(text: str) -> None:
    left = without_ends(text)
    assert text.startswith(left)
    assert not left.rstrip().endswith(ENDS)
    assert without_ends(left + "!" + text[len(left) :]) == left + "!"


def test_many_tokens_cost_no_more_than_their_number() -> None:
    """Each of these took minutes with a pattern that looks at every place anew."""
    for text in (" " * 300_000, "</s>" * 50_000, "<" * 200_000, "[INST]" * 30_000, "<|im_start|>user\n" * 10_000):
        prompt = FAMILIES[0].prompt(text)
        assert apart(text, len(text) // 2) == apart(text, len(text) // 2)
        assert apart_after(prompt, prompt + text).response == without_ends(text)
        assert without_pads(text) == text
