"""Turns texts into token ids, so that no stranger's text can become a control token. The rules are in docs/text.md."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, Final, Protocol, cast

import tokenizers

from medreward.encoding import sentences
from medreward.encoding.thinking import Pair, ThinkingTags
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.types import Flag, Options, Steps, Thinking, TooLong, Turn

BAD_CHARACTER: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x80-\x9f\ud800-\udfff]")
MARKER_LOOK: Final = re.compile(r"<\S+>|\[\S+\]")
#: Of a prompt: a piece of the template, or the ids of a user's text.
Piece = str | Sequence[int]

WHITESPACE: Final = " \t\r\n▁"  # sentencepiece writes a space as the last one


class Tokenizer(Protocol):
    """What the encoder asks of a tokenizer."""

    @property
    def control_tokens(self) -> dict[str, int]:
        """The strings that mean something to the model beyond their letters, and their ids."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids of plain text; none of them is a control token's."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text as ids of the model, and what there is to say of it."""

    ids: Sequence[int]
    flags: tuple[Flag, ...] = ()
    images: tuple[int, ...] = ()  # places of a prompt's images among those of the item, in the order it shows them


@dataclass(frozen=True, slots=True)
class TurnTemplate:
    """How turns before the question are written, as [text.turns] of the manifest says it."""

    between: Sequence[str]
    system: Sequence[str] = ()
    images_first: bool = False


class FileTokenizer:
    """A Hugging Face `tokenizer.json`, loaded without its control tokens; fails for a file that cannot be made safe.

    The library's own switch is not enough: it still finds added tokens that are not flagged special, and a vocabulary
    may hold a marker such as `</s>`, which its normaliser makes of look-alikes too.
    """

    def __init__(self, path: Path) -> None:
        try:
            file = json.loads(path.read_bytes())
            self._control_tokens = _take_out_control_tokens(file)
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(file))
        except OSError:
            raise ConfigurationError(f"no tokenizer at {path}") from None
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None
        except Exception as error:  # the library raises nothing narrower
            raise ConfigurationError(f"{path} is no tokenizer.json: {error}") from None
        reachable = [name for name, id_ in self._control_tokens.items() if self._plain.id_to_token(id_)]
        if reachable:
            raise ConfigurationError(f"{path}: text could become the control token {reachable[0]}")

    @property
    def control_tokens(self) -> dict[str, int]:
        return self._control_tokens

    def encode(self, text: str) -> list[int]:
        # as a batch of one: unlike `encode` it lets other threads run, and it skips the offsets, which nobody reads
        return self._plain.encode_batch_fast([text], add_special_tokens=False)[0].ids


class TextEncoder:
    """Splices the ids of a user's texts into the ids of a model's template.

    `answer_template` follows `prompt_template`; `image_template` stands for its `{image}` where there is an image.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_template: Sequence[str],
        answer_template: Sequence[str],
        max_tokens: int,
        max_chars: int,
        image_template: Sequence[str] = (),
        own_thinking_tags: Iterable[Pair] = (),
        max_sentences: int = sentences.MOST,
        max_steps: int = sentences.MOST_STEPS,
        turns: TurnTemplate | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._max_chars = max_chars
        self._max_sentences = max_sentences
        self._max_steps = max_steps
        self._thinking_tags = ThinkingTags(own_thinking_tags)
        self._control_token = re.compile(_any_of(tokenizer.control_tokens))
        self._prompt_template = prompt_template
        self._image_template = image_template
        self._turns = turns
        self._known: dict[tuple[str, ...], list[int]] = {}  # the ids of runs of template pieces
        at = answer_template.index("{response}")
        self._answer_begins = answer_template[:at]
        self._before_response = self._template_ids(answer_template[:at])
        self._after_response = self._template_ids(answer_template[at + 1 :])
        for images in (0, 1):  # a template that cannot be used stops the start
            self._ids(self._question_pieces([0] * images, [], self._begin()))
        if turns:
            self._ids([*self._begin([]), *turns.between])

    def prompt(
        self,
        question: str,
        has_image: bool = False,
        may_be_empty: bool = False,
        *,
        images: int | None = None,
        history: Sequence[Turn] = (),
    ) -> EncodedText:
        """Returns turns, images and question inside the template. `images` is how many there are; by default, one or
        none. Those that no turn shows stand before the question.

        Raises ItemError for a text that is empty, bad or too long. The turns have been checked: see `engine.turns`.
        """
        self._check(question, "question")
        said = self._tokenizer.encode(question)
        if not may_be_empty and (not said or question.isspace()):
            raise ItemError(Code.EMPTY_QUESTION, "the question is empty", "question")
        shown = [place for turn in history for place in turn.images]
        before = [place for place in range(int(has_image) if images is None else images) if place not in shown]
        ids = self._ids(self._question_pieces(before, said, self._history_pieces(history)))
        if self._room(ids) < 1:
            what = "the turns and the question leave" if history else "the question leaves"
            detail = f"{what} no room for an answer within {self._max_tokens} tokens"
            raise ItemError(Code.TOO_LONG, detail, "history" if history else "question")
        texts = [question, *(turn.text for turn in history)]
        flags = (Flag.CONTROL_TOKENS,) if any(map(self._control_token.search, texts)) else ()
        return EncodedText(ids, flags, (*shown, *before))

    def answer(self, prompt: EncodedText, response: str, options: Options) -> EncodedText:
        """Returns the response inside the template, as it follows this prompt. Its flags are the response's alone.

        Raises ItemError for a response with bad characters, and for one that is too long and may not be cut.
        """
        self._check(response, "response")
        flags = []
        if options.thinking is Thinking.STRIP:
            left = self._thinking_tags.without_thoughts(response)
            if left is not None:
                response = left
                flags.append(Flag.THINKING_STRIPPED)
        ids = self._tokenizer.encode(response)
        if not ids or response.isspace():
            flags.append(Flag.EMPTY_RESPONSE)
        if self._control_token.search(response):
            flags.append(Flag.CONTROL_TOKENS)
        room = self._room(prompt.ids)
        if len(ids) > room:
            if options.too_long is TooLong.ERROR:
                detail = f"question and response have more than {self._max_tokens} tokens"
                raise ItemError(Code.TOO_LONG, detail, "response")
            tail = room // 2
            ids = ids[: room - tail] + ids[len(ids) - tail :]
            flags.append(Flag.CUT_MIDDLE)
        return EncodedText(self._before_response + ids + self._after_response, tuple(flags))

    def sentences(self, response: str, options: Options) -> list[sentences.Span]:
        """Returns the sentences of what is scored of the response; over the limit, as many runs of neighbouring ones.

        Empty for a response with more characters than are scored at all.
        """
        if len(response) > self._max_chars:
            return []
        return sentences.merged(sentences.split(self._scored(response, options)), self._max_sentences)

    def step_ends(self, response: str, options: Options) -> Sequence[int]:
        """Returns where the steps of the response end, in characters, rising.

        Over the limit, the steps of a rule are runs of neighbouring ones.
        Empty for a response with more characters than are scored at all. Raises ItemError for an end that was given and
        lies beyond the response, or within a block of thoughts that is stripped.
        """
        if len(response) > self._max_chars or options.steps is Steps.NONE:
            return []
        if isinstance(options.steps, tuple):
            thoughts = self._thinking_tags.thoughts(response) if options.thinking is Thinking.STRIP else []
            for place, end in enumerate(options.steps):
                if end > len(response):
                    detail = f"the step ends at {end}, and the response has {len(response)} characters"
                    raise ItemError(Code.BAD_STEPS, detail, f"/options/steps/{place}")
                if any(start < end < behind for start, behind in thoughts):
                    detail = f"the step ends at {end}, within thoughts that options.thinking strips"
                    raise ItemError(Code.BAD_STEPS, detail, f"/options/steps/{place}")
            return options.steps
        split = sentences.split if options.steps is Steps.SENTENCES else sentences.paragraphs
        return [end for _, end in sentences.merged(split(self._scored(response, options)), self._max_steps)]

    def _scored(self, response: str, options: Options) -> str:
        """Returns the response with spaces for the thoughts that are not scored."""
        return self._thinking_tags.blanked(response) if options.thinking is Thinking.STRIP else response

    def _begin(self, system: Sequence[int] | None = None) -> list[Piece]:
        """Returns what stands before the first thing that the user says."""
        pieces: list[Piece] = []
        if system is not None and self._turns:
            pieces.extend(system if piece == "{system}" else piece for piece in self._turns.system)
            return pieces
        return [*takewhile(lambda piece: piece not in ("{image}", "{question}"), self._prompt_template)]

    def _history_pieces(self, history: Sequence[Turn]) -> list[Piece]:
        """Returns what stands before the images and the text of the question."""
        if sum(len(turn.text) for turn in history) > self._max_chars:
            raise ItemError(Code.TOO_LONG, f"the turns have more than {self._max_chars} characters", "history")
        pieces = self._begin()
        for number, turn in enumerate(history):
            self._check(turn.text, f"history/{number}")
            match turn.role:
                case "system":
                    pieces = self._begin(self._tokenizer.encode(turn.text))
                case "user":
                    pieces += [*self._content(turn), *self._question_ends(), *self._answer_begins]
                case _:
                    pieces += [self._tokenizer.encode(turn.text), *(self._turns.between if self._turns else ())]
        return pieces

    def _content(self, turn: Turn) -> list[Piece]:
        """Returns the texts and images of a user's turn. Texts that meet are read as one."""
        parts = turn.parts
        if self._turns and self._turns.images_first:
            parts = (*turn.images, turn.text)
        pieces: list[Piece] = []
        for is_text, run in groupby(parts, lambda part: isinstance(part, str)):
            if is_text:
                pieces.append(self._tokenizer.encode("".join(map(str, run))))
            else:
                pieces += [piece for _ in run for piece in self._image_template]
        return pieces

    def _question_pieces(self, images: Sequence[int], said: Sequence[int], before: Sequence[Piece]) -> list[Piece]:
        """Returns the prompt, whose question comes `before` and shows so many images."""
        pieces = [*before]
        for piece in self._prompt_template[len(self._begin()) :]:
            if piece == "{image}":
                pieces += [*self._image_template] * len(images)
            else:
                pieces.append(said if piece == "{question}" else piece)
        return pieces

    def _question_ends(self) -> Sequence[str]:
        return self._prompt_template[self._prompt_template.index("{question}") + 1 :]

    def _ids(self, pieces: Sequence[Piece]) -> list[int]:
        """Returns the ids of template pieces and of texts that are ids already. Pieces that meet are read as one."""
        ids: list[int] = []
        for is_template, run in groupby(pieces, lambda piece: isinstance(piece, str)):
            if not is_template:
                for text in run:
                    ids += cast(Sequence[int], text)
                continue
            key = tuple(map(str, run))
            if key not in self._known:
                self._known[key] = self._template_ids(key)
            ids += self._known[key]
        return ids

    def _room(self, prompt: Sequence[int]) -> int:
        return self._max_tokens - len(prompt) - len(self._before_response) - len(self._after_response)

    def _check(self, text: str, field: str) -> None:
        if len(text) > self._max_chars:
            raise ItemError(Code.TOO_LONG, f"the text has more than {self._max_chars} characters", field)
        if BAD_CHARACTER.search(text):
            raise ItemError(Code.BAD_TEXT, "the text has control characters or lone surrogates", field)

    def _template_ids(self, pieces: Sequence[str]) -> list[int]:
        ids: list[int] = []
        for control, run in groupby(pieces, self._tokenizer.control_tokens.__contains__):
            if control:
                ids += [self._tokenizer.control_tokens[piece] for piece in run]
                continue
            plain = [*run]
            text = "".join(plain)  # around an image that is not there two pieces may meet
            for piece in (*plain, text):
                if self._control_token.search(piece) or MARKER_LOOK.fullmatch(piece):
                    raise ConfigurationError(
                        f"template piece {piece!r} is no control token of the tokenizer, nor plain text"
                    )
            ids += self._tokenizer.encode(text)
        return ids


def _take_out_control_tokens(file: dict[str, Any]) -> dict[str, int]:
    """Changes a parsed `tokenizer.json` so that no text leads to a control token; returns those taken out."""
    model = file["model"]
    vocab = model["vocab"]
    known = {entry[0]: i for i, entry in enumerate(vocab)} if isinstance(vocab, list) else vocab
    names = {id_: name for name, id_ in known.items()}
    unknown = model.get("unk_token") or names.get(model.get("unk_id"))
    text, control = [], {}
    for token in file["added_tokens"]:
        name, id_ = token["content"], token["id"]
        if known.get(name, id_) != id_ or names.get(id_, name) != name:
            raise ConfigurationError(f"added token {name!r} and the vocabulary disagree on id {id_}")
        if name in known and not name.strip(WHITESPACE):
            text.append(token)  # Gemma lists its runs of spaces and newlines here
        elif name != unknown:  # the unknown token stands for any letter that the model never saw
            control[name] = id_
    file |= {"added_tokens": text, "truncation": None, "padding": None, "post_processor": None}
    if model.get("dropout"):
        model["dropout"] = None
    _remove_from_vocabulary(model, control.keys() & known.keys())
    return control


def _remove_from_vocabulary(model: dict[str, Any], gone: Collection[str]) -> None:
    if not gone:
        return
    if isinstance(model["vocab"], list):  # Unigram: an id is a place in the list, and no text matches an empty entry
        model["vocab"] = [["", score] if name in gone else [name, score] for name, score in model["vocab"]]
    else:
        model["vocab"] = {name: id_ for name, id_ in model["vocab"].items() if name not in gone}
    if "merges" in model:
        prefix = len(model.get("continuing_subword_prefix") or "")
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [[a, b] for a, b in pairs if a not in gone and b not in gone and a + b[prefix:] not in gone]


def _any_of(words: Collection[str]) -> str:
    """Returns a pattern that finds any of the words. Prefixes are shared, because models reserve thousands of words."""
    if "" in words:
        return ""
    branches = [re.escape(c) + _any_of({w[1:] for w in words if w[0] == c}) for c in sorted({w[0] for w in words})]
    if not branches:
        return "(?!)"
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
