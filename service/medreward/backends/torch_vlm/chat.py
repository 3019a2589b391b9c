"""Takes a checkpoint's own chat template apart: control tokens, text, and the places of image, question and
response.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from medreward.encoding.text import FileTokenizer, TextEncoder, TurnTemplate
from medreward.errors import ConfigurationError
from medreward.types import Options, Turn

QUESTION: Final = "Is there a fracture of the left rib?"
RESPONSE: Final = "Yes, of the sixth one."
RUBRIC: Final = "Is every claim of the answer right?"
EARLIER: Final = "Which organ is shown here?"
REPLY: Final = "The lungs of an adult."
MANY: Final = 10**6

#: What a family's processor puts around the image, by what its template says; its tokens by their names in the config
#: or of the tokenizer. None where the template says it all.
AROUND: Final[Mapping[str, tuple[str, Sequence[str]] | None]] = {
    "qwen2_vl": None,
    "qwen2_5_vl": None,
    "qwen3_vl": None,
    "llava": None,
    "llava_next": None,
    "llava_onevision": None,
    "internvl": ("image_token", ("start_image_token", "image_token", "end_image_token")),
    "gemma3": ("boi_token", ("\n\n", "boi_token", "image_token", "eoi_token", "\n\n")),
}


@dataclass(frozen=True, slots=True)
class Template:
    """The pieces of a template as a manifest has them under [vlm] and [text]."""

    image: Sequence[str]
    prompt: Sequence[str]
    answer: Sequence[str]
    turns: TurnTemplate | None = None


class Chat:
    """Renders turns as transformers does. Its methods fail with a ConfigurationError that says what of the template a
    manifest cannot say.
    """

    def __init__(self, folder: Path, config: Any, tokenizer: FileTokenizer, own: Any) -> None:
        """`own` is the same tokenizer as transformers opens it."""
        if config.model_type not in AROUND:
            known = ", ".join(AROUND)
            raise ConfigurationError(f"how {config.model_type} writes an image is not known here (known: {known})")
        self._own = own
        self._tokenizer = tokenizer
        self._names = {id_: name for name, id_ in tokenizer.control_tokens.items()}
        self._control = re.compile(f"({'|'.join(map(re.escape, sorted(self._names.values(), key=len, reverse=True)))})")
        legacy = folder / "chat_template.json"  # a processor's, before there was the .jinja
        try:
            if legacy.exists() and not (folder / "chat_template.jinja").exists():
                self._template = str(json.loads(legacy.read_text("utf-8"))["chat_template"])
            else:
                self._template = str(own.get_chat_template())
        except (ValueError, KeyError) as error:
            raise ConfigurationError("it has no chat template") from error
        self._around: tuple[str, list[str]] | None = None  # a marker in what is rendered, and what it stands for
        if around := AROUND[config.model_type]:
            marker, pieces = around
            names = [piece if piece.isspace() else self._named(config, piece) for piece in pieces]
            self._around = self._named(config, marker), names

    def template(self) -> Template:
        """Returns the pieces of a turn of the user, image before question, and one of the assistant, with the
        response.
        """
        with_image, without = (self._rendered(_turns(has_image)) for has_image in (True, False))
        before, between, after = self._cut(with_image)
        plain, *rest = self._cut(without)
        if rest != [between, after]:
            raise ConfigurationError("its chat template changes behind the question when there is an image")
        begin, image, end = _inserted(self._pieces(before), self._pieces(plain))
        prompt = [*self._begin(with_image), *begin, "{image}", *end, "{question}", *self._pieces(between)]
        answer = ["{response}", *self._pieces(after)]
        if len(answer) == 1:  # an empty response must leave a token to read
            answer = [prompt.pop(), *answer]
        if "{question}" in answer:
            raise ConfigurationError("its chat template has nothing between question and response, nor behind")
        if self._around:
            marker, around = self._around
            image = [part for piece in image for part in (around if piece == marker else [piece])]
        return Template(image, prompt, answer)

    def turns(self, template: Template) -> TurnTemplate:
        """Returns how turns before the question are written. Fails where the template writes the same turns otherwise
        than by those pieces, for instance an earlier answer otherwise than the last."""
        if template.prompt[template.prompt.index("{image}") + 1] != "{question}":
            raise ConfigurationError("its chat template writes more between image and question")
        earlier = [_turn("user", EARLIER), _turn("assistant", REPLY)]
        before, asked, between, *_ = self._apart([*earlier, *_turns(False)], EARLIER, REPLY, QUESTION, RESPONSE)
        shown = self._cut(self._rendered(_turns(False)))
        if (before, asked) != shown[:2]:
            raise ConfigurationError("its chat template writes an earlier turn otherwise than the last")
        turns = TurnTemplate(self._pieces(between), images_first=self._writes_images_first())
        self._encoder(replace(template, turns=turns))
        try:
            with_system = replace(turns, system=self._system(shown))
            self._encoder(replace(template, turns=with_system))
        except ConfigurationError:
            return turns
        return with_system

    def _system(self, shown: Sequence[str]) -> Sequence[str]:
        """Returns the pieces of a system turn, up to what the user says; none where the template takes no such turn."""
        turns = [_turn("system", RUBRIC), *_turns(False)]
        before, after, *rest = self._apart(turns, RUBRIC, QUESTION, RESPONSE)
        if rest != [*shown[1:]]:
            raise ConfigurationError("its chat template writes the turns after a system turn otherwise")
        return [*self._begin(self._rendered(turns)), *self._pieces(before), "{system}", *self._pieces(after)]

    def _writes_images_first(self) -> bool:
        """Returns whether the template puts an image that stands between two texts before both of them."""
        parts = [{"type": "text", "text": EARLIER}, {"type": "image"}, {"type": "text", "text": REPLY}]
        text = self._rendered([{"role": "user", "content": parts}, _turn("assistant", RESPONSE)])
        _, between, *_ = self._split(text, EARLIER, REPLY, RESPONSE)
        return not self._control.search(between)

    def _apart(self, turns: Sequence[Mapping[str, Any]], *texts: str) -> list[str]:
        return self._split(self._rendered(turns), *texts)

    def _split(self, rendered: str, *texts: str) -> list[str]:
        """Returns what stands around the texts, which the rendered text must have once each, in this order."""
        parts = []
        for text in texts:
            part, found, rendered = rendered.partition(text)
            if not found or text in rendered:
                raise ConfigurationError("its chat template does not show the turns once each, in their order")
            parts.append(part)
        return [*parts, rendered]

    def ask(self) -> Sequence[str]:
        """Returns the pieces that follow an answer when the user asks on and the assistant is to speak."""
        turns = _turns(has_image=True)
        said, asked = self._rendered(turns), self._rendered([*turns, _turn("user", RUBRIC)], speaks=True)
        rest = asked.removeprefix(said)
        if rest == asked or rest.count(RUBRIC) != 1:
            raise ConfigurationError(
                "its chat template cannot ask on after an answer without changing what went before"
            )
        before, after = rest.split(RUBRIC)
        return [*self._pieces(before), "{rubric}", *self._pieces(after)]

    def differs(self, template: Template) -> str | None:
        """Returns where the ids of an example differ from those that transformers gives, or None where they do not.

        They differ where pieces, each tokenised alone, make other tokens than the rendered text as a whole.
        """
        turns, text = template.turns, self._encoder(template)
        examples = {"with an image": (_turns(True), text.prompt(QUESTION, True))}
        examples["without an image"] = (_turns(False), text.prompt(QUESTION, False))
        if turns:
            history = [Turn("user", (0, EARLIER)), Turn("assistant", REPLY)]
            history = [Turn("system", RUBRIC), *history] if turns.system else history
            whole = [*map(_as_rendered, history), *_turns(True)]
            examples["with two images and turns before"] = whole, text.prompt(QUESTION, images=2, history=history)
        for name, (written, prompt) in examples.items():
            ours = [*prompt.ids, *text.answer(prompt, RESPONSE, Options()).ids]
            rendered = self._rendered(written)
            if self._around:
                rendered = rendered.replace(self._around[0], "".join(self._around[1]))
            theirs = self._ids(rendered)
            if ours != theirs:
                same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))])
                near = self._own.decode(theirs[max(0, same - 1) : same + 2])
                return f"{name}, from token {same} of {len(theirs)}: {near!r}"
        return None

    def _encoder(self, template: Template) -> TextEncoder:
        return TextEncoder(
            self._tokenizer, template.prompt, template.answer, MANY, MANY, template.image, turns=template.turns
        )

    def _named(self, config: Any, role: str) -> str:
        id_ = getattr(config, f"{role}_id", None)
        name = self._names.get(id_) if id_ is not None else getattr(self._own, role, None)
        if name not in self._tokenizer.control_tokens:
            raise ConfigurationError(f"neither its config nor its tokenizer names the {role}")
        return str(name)

    def _rendered(self, turns: Sequence[Mapping[str, Any]], speaks: bool = False) -> str:
        try:
            return str(
                self._own.apply_chat_template(
                    turns, chat_template=self._template, tokenize=False, add_generation_prompt=speaks
                )
            )
        except Exception as error:  # a template is a program that may raise anything
            raise ConfigurationError(f"its chat template cannot render user and assistant: {error}") from error

    def _cut(self, text: str) -> tuple[str, str, str]:
        """Returns what stands before the question, between it and the response, and after that."""
        if text.count(QUESTION) != 1 or text.count(RESPONSE) != 1:
            raise ConfigurationError("its chat template does not show question and response once each, as they are")
        before, rest = text.split(QUESTION)
        if RESPONSE not in rest:
            raise ConfigurationError("its chat template shows the response before the question")
        between, after = rest.split(RESPONSE)
        return before, between, after

    def _pieces(self, text: str) -> list[str]:
        return [piece for piece in self._control.split(text) if piece]

    def _ids(self, text: str) -> list[int]:
        """Returns the ids that transformers' processors give. The tokenizer puts its token in front, unless the text
        has it.
        """
        bos = self._own.bos_token
        return list(self._own(text, add_special_tokens=not (bos and text.startswith(bos))).input_ids)

    def _begin(self, text: str) -> list[str]:
        """Returns the names of the tokens that the tokenizer puts in front; fails where it puts any behind."""
        whole, plain = self._ids(text), list(self._own(text, add_special_tokens=False).input_ids)
        added = whole[: len(whole) - len(plain)]
        if added + plain != whole:
            raise ConfigurationError("its tokenizer puts tokens behind a text, which a template cannot say")
        return [self._names[id_] for id_ in added]


def _turn(role: str, text: str) -> Mapping[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _as_rendered(turn: Turn) -> Mapping[str, Any]:
    """Returns the turn as a chat template takes it."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in turn.parts]
    return {"role": turn.role, "content": parts}


def _turns(has_image: bool) -> list[Mapping[str, Any]]:
    user = _turn("user", QUESTION)
    if has_image:
        user = {"role": "user", "content": [{"type": "image"}, *user["content"]]}
    return [user, _turn("assistant", RESPONSE)]


def _inserted(longer: Sequence[str], shorter: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Returns the longer list in three parts: what both begin with, what the longer has more, what both end with."""
    begin = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(longer, shorter, strict=False))]
    end = list(shorter[len(begin) :])
    more = list(longer[len(begin) : len(longer) - len(end)])
    if not more or [*begin, *more, *end] != list(longer):
        raise ConfigurationError("its chat template changes more than the image when there is one")
    return begin, more, end
