"""Finds in what a trainer hands over the image, the question and the response."""

import base64
import binascii
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from medreward.clients.calls import Triple
from medreward.clients.images import ImageLike, image_bytes
from medreward.clients.score import Score
from medreward.errors import Code
from medreward.types import StoredImage, Turn

IMAGE_PARTS: Final = ("image", "image_url", "input_image")  # of a message's content
#: Where a part holds its image: the file itself first, because its hash is the same wherever it comes from.
HOLDS: Final = ("bytes", "image", "url", "path")
#: How a turn begins in the chat templates that people train with.
CHAT_MARKUP: Final = re.compile(r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]")
#: What a tokenizer writes at the end of a generated text when it does not leave out special tokens.
END_MARKS: Final = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"),
    *("<end_of_turn>", "<eos>", "<pad>", "</s>"),
)

Text: TypeAlias = str | Sequence[Mapping[str, Any]]  # plain, or messages of a conversation


class Pictures:
    """Images as files. A batch has many copies of an image, and six functions ask for each: pixels are written once."""

    def __init__(self) -> None:
        self._files: dict[Hashable, bytes | None] = {}
        self._earlier: dict[Hashable, bytes | None] = {}

    def start_batch(self) -> None:
        self._earlier, self._files = self._files, {}

    def file(self, image: ImageLike) -> bytes | str | StoredImage | None:
        """Raises OSError, SyntaxError or ValueError for an image that cannot be read."""
        if isinstance(image, StoredImage) or (isinstance(image, str) and image.startswith(("http://", "https://"))):
            return image
        pixels = _pixels(image)
        if pixels is None:
            return image_bytes(image)
        if pixels not in self._files:
            self._files[pixels] = self._earlier[pixels] if pixels in self._earlier else image_bytes(image)
        return self._files[pixels]


def _pixels(image: Any) -> Hashable:
    """What decides the file that is made of an array or a PIL image; None for what is a file already."""
    if hasattr(image, "getpalette"):
        about = repr(sorted(image.info.items(), key=str)), image.getexif().get(0x0112)  # how it is turned
        return image.mode, image.size, about, repr(image.getpalette()), image.tobytes()
    if hasattr(image, "__array_interface__"):
        return str(image.dtype), image.shape, image.tobytes()
    return None


def one_triple(
    pictures: Pictures,
    images: Sequence[ImageLike],
    question: str,
    response: str,
    history: tuple[Turn, ...] = (),
) -> Triple | Score:
    """Returns a Score with an error where an image cannot be read, or a turn is of somebody whom no model knows."""
    strangers = {turn.role for turn in history} - {"system", "user", "assistant"}
    if strangers:
        message = f"the prompt has a turn of {min(strangers)}: system, user and assistant are read"
        return Score(error=Code.UNSUPPORTED_FIELD, message=message)
    try:
        files = tuple(map(pictures.file, images))
        return Triple(files if len(files) > 1 else files[0] if files else None, question, response, history)
    except (OSError, SyntaxError, ValueError) as error:  # the second from Pillow, of broken PNG files
        return Score(error=Code.IMAGE_INVALID, message=str(error))


def listed(value: Any) -> list[ImageLike]:
    """Returns the images of a row's column, which holds one, a list of them, or None."""
    if isinstance(value, list | tuple):
        return [image for image in value if image is not None]
    return [] if value is None else [value]


def images_in(prompt: Text) -> list[ImageLike]:
    """Returns the images of a conversation, under the names that chat templates and data sets give them."""
    parts = [part for part in _parts(prompt) if part["type"] == "image"]
    held = [[part[name] for name in HOLDS if part.get(name) is not None] for part in parts]
    return [images[0] for images in held if images]


def turns_in(prompt: Text, images: int) -> tuple[Turn, ...]:
    """Returns the turns before the last one of the user; none of a plain prompt.

    The image parts of the conversation are, in their order, the first of the row's `images`; further ones are left out.
    """
    if isinstance(prompt, str):
        return ()
    last = max((n for n, message in enumerate(prompt) if message["role"] == "user"), default=0)
    parts = [part for part in _parts(prompt) if part["type"] in IMAGE_PARTS]
    held = [part for part in parts if any(part.get(name) is not None for name in HOLDS)] or parts
    places = {id(part): place for place, part in enumerate(held[:images])}
    turns = (_turn(message, places) for message in prompt[:last])
    return tuple(turn for turn in turns if turn != Turn("system", ""))  # which data sets have where they say nothing


def _turn(message: Mapping[str, Any], places: Mapping[int, int]) -> Turn:
    """Returns a message as a turn; `places` are those of the image parts, by their identity."""
    role = "system" if message["role"] == "developer" else message["role"]
    content = message.get("content")
    if not isinstance(content, list):
        return Turn(role, content or "")
    parts = [part["text"] if part["type"] == "text" else places.get(id(part)) for part in content]
    return Turn(role, tuple(part for part in parts if part is not None))


def shows_image(prompt: Text) -> bool:
    return any(part["type"] in IMAGE_PARTS for part in _parts(prompt))


def question_in(prompt: Text) -> str:
    """Returns the text of the last user turn, or the whole of a plain prompt."""
    return prompt if isinstance(prompt, str) else _last(prompt, "user")


def response_in(completion: Text) -> str:
    """Returns the text of the last assistant turn, or the whole of a plain completion."""
    return completion if isinstance(completion, str) else _last(completion, "assistant")


def plain_question(prompt: Text, where: str) -> str:
    """Returns `question_in`; raises ValueError where the prompt is a rendered chat template, which holds more than it.

    `where` says where the question can be given instead.
    """
    if isinstance(prompt, str) and CHAT_MARKUP.search(prompt):
        raise ValueError(
            f"the prompt is a rendered chat template, and no question can be told from it: give it {where}"
        )
    return question_in(prompt)


def of_label(label: Any) -> tuple[ImageLike, str | None]:
    """Returns the image and the question that a label holds, each of them None where it holds none.

    A label is a mapping, or JSON of one, with `image` and `question`; or an image alone: the sha256 of a stored one, a
    data URL, an address, a path on this machine, a data set's {"bytes", "path"}. Raises ValueError for anything else.
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError as error:
            raise ValueError(f"the label begins like a JSON object and is no JSON: {error}") from None
    if isinstance(label, Mapping) and label.keys() & {"image", "question"}:
        return _label_image(label.get("image")), label.get("question")
    return _label_image(label), None


def after_prompt(query: str, prompt: str) -> str:
    """Returns what a model wrote after `prompt`, of `query`, which is the prompt and it; without marks of its end.

    The prompt need not be the beginning of the query letter by letter, because a processor writes one image as many
    marks. So the end of the prompt is looked for: in the query it comes as many times as in the prompt, and what
    follows is the model's own. Raises ValueError where it does not.
    """
    end = prompt[-24:]
    times = prompt.count(end) if end else 0
    parts = query.split(end) if end else [query]
    if len(parts) <= times:
        raise ValueError("the query does not hold its prompt, so that the response cannot be told from it")
    return without_end_mark(end.join(parts[times:]))


def without_end_mark(text: str) -> str:
    """Returns the text without the marks of its end that a tokenizer wrote after it."""
    while mark := next((mark for mark in END_MARKS if text.rstrip().endswith(mark)), None):
        text = text.rstrip().removesuffix(mark)
    return text


def _label_image(written: Any) -> ImageLike:
    image: ImageLike = written  # what is no image at all, the client refuses with a TypeError
    if not isinstance(image, str):
        return image
    if re.fullmatch("[0-9a-f]{64}", image):
        return StoredImage(image)
    if image.startswith("data:"):
        try:
            return base64.b64decode(image.partition(",")[2], validate=True)
        except binascii.Error:
            raise ValueError("the label is a data URL with no base64 in it") from None
    return image or None


def _parts(prompt: Text) -> list[Mapping[str, Any]]:
    if isinstance(prompt, str):
        return []
    return [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]


def _last(messages: Sequence[Mapping[str, Any]], role: str) -> str:
    """The text of that role's last turn."""
    content = next((message.get("content") for message in reversed(messages) if message["role"] == role), None)
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""
