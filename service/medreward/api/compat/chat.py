"""Conversations as lists of messages, in the shapes of OpenAI's chat and Responses APIs: texts or parts."""

from collections.abc import Sequence
from typing import Final

from medreward.api.compat.asking import Foreign, Sample
from medreward.api.compat.labels import image_named, read_label
from medreward.api.compat.markup import without_pads
from medreward.errors import Code, ItemError
from medreward.types import Item, Turn

LEFT_OUT: Final = ("system", "developer")
READ: Final = ("user", "assistant")


class ImageUrl(Foreign):
    url: str


class Part(Foreign):
    """A part with a text is text, and one with an image is an image, whatever its type is called."""

    text: str | None = None
    image_url: str | ImageUrl | None = None
    image: str | None = None

    @property
    def image_name(self) -> str | None:
        return self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url or self.image


class Message(Foreign):
    role: str
    content: str | list[Part] | None = None

    @property
    def parts(self) -> list[Part]:
        return [Part(text=self.content)] if isinstance(self.content, str) else self.content or []

    @property
    def text(self) -> str:
        return "".join(part.text or "" for part in self.parts)


def chat_sample(pointer: str, messages: Sequence[Message], response: str, label: object = None) -> Sample:
    """Returns the sample of a conversation that ends with the question. Turns of the system are left out; images are
    those of all its turns, or the one that a label names."""
    turns = [message for message in messages if message.role not in LEFT_OUT]
    try:
        if not turns or turns[-1].role != "user":
            raise ItemError(Code.EMPTY_QUESTION, "the turn before the response must be the user's question")
        if any(turn.role not in READ for turn in turns):
            raise ItemError(Code.UNSUPPORTED_FIELD, "turns other than of system, user and assistant are not read")
        about = read_label(label)
        named = [part.image_name for turn in turns for part in turn.parts if part.image_name]
        images = about.images or tuple(map(image_named, named))
        *history, question = (Turn(turn.role, without_pads(turn.text)) for turn in turns)
        asked = question.content if about.question is None else about.question
        return Sample(pointer, Item(asked, (response,), images, tuple(history)))
    except ItemError as error:
        return Sample(pointer, error)
