"""Conversations as lists of messages, in the shapes of OpenAI's chat and Responses APIs: texts or parts."""

from collections.abc import Iterator, Sequence
from typing import Final

from medreward.api.compat.asking import Foreign, Sample
from medreward.api.compat.labels import image_named, read_label
from medreward.api.compat.markup import without_pads
from medreward.errors import Code, ItemError
from medreward.types import Item, Turn

SYSTEM: Final = ("system", "developer")
READ: Final = ("system", "user", "assistant")


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

    def turn(self, places: Iterator[int]) -> Turn:
        """Returns the message as a turn; each of its images takes the next of the places."""
        parts = [next(places, None) if part.image_name else without_pads(part.text or "") for part in self.parts]
        role = "system" if self.role in SYSTEM else self.role
        return Turn(role, tuple(part for part in parts if part is not None))


def chat_sample(pointer: str, messages: Sequence[Message], response: str, label: object = None) -> Sample:
    """Returns the sample of a conversation that ends with the question. Images are those of all its turns, each where
    its turn shows it, or those that a label names, before the question."""
    try:
        if not messages or messages[-1].role != "user":
            raise ItemError(Code.EMPTY_QUESTION, "the turn before the response must be the user's question")
        about = read_label(label)
        named = [part.image_name for message in messages for part in message.parts if part.image_name]
        images = about.sources or tuple(map(image_named, named))
        places = iter(() if about.sources else range(len(named)))
        *history, question = [message.turn(places) for message in messages]
        if any(turn.role not in READ for turn in history):
            raise ItemError(Code.UNSUPPORTED_FIELD, "turns other than of system, user and assistant are not read")
        asked = question.text if about.question is None else about.question
        return Sample(pointer, Item(asked, (response,), images, tuple(history)))
    except ItemError as error:
        return Sample(pointer, error)
