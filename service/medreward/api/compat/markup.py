"""Takes a text with chat markup apart into question, history and response, for trainers that send nothing else.

The response was written by the policy that is trained, so nothing in it may move a boundary. Where the trainer says
what the prompt was, the response is the turn of the assistant that the prompt opens last. Where it does not, it is all
that follows the first turn of the assistant: a text alone cannot tell a conversation from a response that plays one.
"""

import re
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

from medreward.types import Turn

#: What stands before the first turn: the beginning of a text, and what a batch was padded with.
LEAD: Final = re.compile(r"(?:<\|begin_of_text\|>|<\|endoftext\|>|<\|finetune_right_pad_id\|>|<bos>|<pad>|<s>|\s)*+")

#: What stands after the response when a text was decoded with its special tokens.
ENDS: Final = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<end_of_turn>",
    "<eos>",
    "<pad>",
    "</s>",
)
REVERSED_ENDS: Final = re.compile("(?:\\s*+(?:" + "|".join(re.escape(end[::-1]) for end in ENDS) + "))*+")

#: Where an image stands in a prompt, one for each patch or one for all of them.
PADS: Final = re.compile(
    r"<\|vision_start\|>|<\|vision_end\|>|<\|(?:image|video|vision)_pad\|>|<\|image\|>|</?img>|<image>|<IMG_CONTEXT>"
    r"|\[IMG(?:_BREAK|_END)?\]|<(?:start_of_image|end_of_image|image_soft_token)>"
)


@dataclass(frozen=True)
class Template:
    """How a family of models writes turns: each has what opens it and what closes it, as regular expressions.
    `markers` finds all of these; a turn's text has none of them."""

    markers: re.Pattern[str]
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]

    @cached_property
    def turn(self) -> re.Pattern[str]:
        """Finds one whole turn, whose text is the group with its role's name."""
        text = rf"[^<\[]*+(?:(?!{self.markers.pattern})[<\[][^<\[]*+)*+"  # `*+`: no place is looked at twice
        roles = {"system": self.system, "user": self.user, "assistant": self.assistant}
        return re.compile("|".join(f"{opens}(?P<{role}>{text}){closes}" for role, (opens, closes) in roles.items()))

    @cached_property
    def opening(self) -> re.Pattern[str]:
        """Finds where a turn of the assistant begins."""
        return re.compile(self.assistant[0])

    def turns(self, text: str) -> list[Turn] | None:
        """Returns the turns of a text in which, after one of the system perhaps, user and assistant take turns and the
        user is the last. None for any other text."""
        at = len(text) - len(LEAD.sub("", text, 1))
        turns: list[Turn] = []
        while turn := self.turn.match(text, at):
            at = turn.end()
            role = turn.lastgroup or ""
            if role != "system" or not turns:
                turns.append(Turn(role, turn[role]))
        roles = [turn.role for turn in turns if turn.role != "system"]
        alternate = roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        return turns if alternate and at == len(text) else None


def _template(opens: str, closes: str, markers: str, assistant: str = "assistant") -> Template:
    """Returns a template whose turns differ in the role's name alone, which stands for `ROLE`."""
    roles = ("system", "user", assistant)
    return Template(re.compile(markers), *((opens.replace("ROLE", role), closes) for role in roles))


TEMPLATES: Final = (
    _template(r"<\|im_start\|>ROLE\n", r"<\|im_end\|>\n?", r"<\|im_(?:start|end)\|>"),  # ChatML, Qwen, InternVL
    _template(  # Llama 3
        r"<\|start_header_id\|>ROLE<\|end_header_id\|>\n\n",
        r"<\|eot_id\|>",
        r"<\|(?:(?:start|end)_header|eot|eom)_id\|>",
    ),
    _template(r"<start_of_turn>ROLE\n", r"<end_of_turn>\n?", r"<(?:start|end)_of_turn>", "model"),  # Gemma
    Template(  # Mistral
        re.compile(r"\[/?(?:INST|SYSTEM_PROMPT)\]|</s>"),
        system=(r"\[SYSTEM_PROMPT\]", r"\[/SYSTEM_PROMPT\]"),
        user=(r"\[INST\] ?", ""),
        assistant=(r"\[/INST\] ?", "</s> ?"),
    ),
)


@dataclass(frozen=True, slots=True)
class Parts:
    """`is_raw`: no markup of a known template was found, or the response holds more of it, which was left in it."""

    question: str
    response: str
    history: tuple[Turn, ...] = ()
    is_raw: bool = False


def apart(text: str, prompt: int | None = None) -> Parts:
    """Returns the parts of a text whose first `prompt` characters are known to be the prompt; None: nobody knows.

    A text of no known template is raw: its question is the prompt, or empty where nobody knows it.
    """
    for template in TEMPLATES:
        end = prompt
        if end is None:
            opening = template.opening.search(text)
            end = opening.end() if opening else 0
        if (read := _read_prompt(template, text[:end])) is not None:
            turns, start = read
            opening = template.opening.match(text, start)
            response = without_ends(text[opening.end() if opening else start :])
            history = tuple(Turn(turn.role, without_pads(turn.text)) for turn in turns[:-1])
            is_raw = prompt is None and template.markers.search(response) is not None
            return Parts(without_pads(turns[-1].text).strip(), response, history, is_raw)
    return Parts(without_pads(text[: prompt or 0]), without_ends(text[prompt or 0 :]), is_raw=True)


def _read_prompt(template: Template, prompt: str) -> tuple[list[Turn], int] | None:
    """Returns the turns of a prompt and where the turn of the assistant begins that it opens last, or would open at its
    end. None for a prompt that the template does not make."""
    *_, last = (None, *template.opening.finditer(prompt))
    if last and not template.markers.search(prompt, last.end()):
        turns, start = template.turns(prompt[: last.start()]), last.start()
    else:
        turns, start = template.turns(prompt), len(prompt)
    return (turns, start) if turns else None


def apart_after(prompt: str, query: str) -> Parts:
    """Returns the parts of a query that begins with its prompt. Tokenizers put their first token there once more, and
    processors of images one placeholder for each patch, so these need not agree. A query that begins otherwise, or
    whose prompt is empty, is taken apart as one whose prompt nobody knows."""
    for of in (str, partial(PADS.sub, "")):
        bare, whole = LEAD.sub("", of(prompt), 1), of(query)
        lead = len(whole) - len(LEAD.sub("", whole, 1))
        if bare and whole.startswith(bare, lead):
            return apart(whole, lead + len(bare))
    return apart(query)


def without_ends(text: str) -> str:
    """Returns the text without the tokens that end a turn or pad a batch, where they stand at its end."""
    ends = REVERSED_ENDS.match(text[::-1])
    return text[: len(text) - ends.end()] if ends else text


def without_pads(text: str) -> str:
    """Returns the text without the placeholders of images, and then without white space around it."""
    left, pads = PADS.subn("", text)
    return left.strip() if pads else text
