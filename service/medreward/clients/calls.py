"""Puts triples that share image and question into groups, and groups into calls."""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from medreward.clients.images import File, ImageLike, Source, load
from medreward.types import ImageSource, InlineImage, Item, StoredImage, Turn, UrlImage

CALL_GROUPS: Final = 16
CALL_RESPONSES: Final = 128
CALL_CHARS: Final = 2_000_000
CALL_IMAGE_BYTES: Final = 16 * 1024 * 1024  # so that a server's image store holds what is on its way
FORGETTINGS: Final = 2  # of an image, before it travels with the call


@dataclass(frozen=True, slots=True)
class Triple:
    """What `score_many` takes. A plain tuple of image, question and response will do as well."""

    image: ImageLike
    question: str
    response: str


@dataclass(slots=True, eq=False)
class Group:
    """One question about one image. `left` holds the responses that have no final score yet, each with its place in the
    result.
    """

    image: Source
    question: str
    history: tuple[Turn, ...]
    left: list[tuple[int, str]]
    forgotten: int = 0  # times the server did not know the image that was stored there

    @property
    def stored_image(self) -> File | None:
        """The image if the server shall store it. One that it forgot again and again travels with the call instead."""
        return self.image if isinstance(self.image, File) and self.forgotten < FORGETTINGS else None

    def item(self) -> Item:
        """Returns the group as an item of a call, with the responses that are left."""
        sources: tuple[ImageSource, ...] = ()
        if self.stored_image:
            sources = (StoredImage(self.stored_image.sha256),)
        elif isinstance(self.image, File):
            sources = (InlineImage(self.image.data),)
        elif isinstance(self.image, UrlImage | StoredImage):
            sources = (self.image,)
        return Item(self.question, tuple(response for _, response in self.left), sources, self.history)


def home_of(asked: Group | Item) -> str:
    """Returns the key by which one of several servers is chosen: the image, or the question where there is none.

    What has the same key belongs together, for a server does the work on an image and a question once.
    """
    if isinstance(asked, Group) and isinstance(asked.image, File):
        return asked.image.sha256
    item = asked.item() if isinstance(asked, Group) else asked
    match item.images:
        case (StoredImage(sha256), *_):
            return sha256
        case (InlineImage(data), *_):
            return hashlib.sha256(data).hexdigest()
        case (UrlImage(url), *_):
            return url
    return item.question


async def group_by_question(triples: Sequence[Triple]) -> list[Group]:
    """Returns a group for each image and question in order of first appearance; none is larger than a call may be."""
    objects = {id(triple.image): triple.image for triple in triples}
    loaded = await asyncio.gather(*map(load_aside, objects.values()))
    sources = dict(zip(objects, loaded, strict=True))
    answers: dict[tuple[Source | str, str], list[tuple[int, str]]] = {}
    images: dict[Source | str, Source] = {}
    for place, triple in enumerate(triples):
        source = sources[id(triple.image)]
        key = source.sha256 if isinstance(source, File) else source
        images.setdefault(key, source)
        answers.setdefault((key, triple.question), []).append((place, triple.response))
    return [group for (key, question), left in answers.items() for group in of_call_size(images[key], question, left)]


async def load_aside(image: ImageLike) -> Source:
    """Returns the image as the client sends it; reads and converts it in a thread."""
    return None if image is None else await asyncio.to_thread(load, image)


def of_call_size(
    image: Source, question: str, left: list[tuple[int, str]], history: tuple[Turn, ...] = ()
) -> Iterator[Group]:
    """Yields groups of at most as many responses as a call may have."""
    for start in range(0, len(left), CALL_RESPONSES):
        yield Group(image, question, history, left[start : start + CALL_RESPONSES])


def pack(groups: Iterable[Group], one_image: bool) -> Iterator[list[Group]]:
    """Yields calls, which are groups that travel together. With `one_image` all groups of a call have the same
    image.
    """
    call: list[Group] = []
    images: dict[str, int] = {}
    responses = chars = 0
    for group in groups:
        size = len(group.question) + sum(len(response) for _, response in group.left)
        image = {group.image.sha256: len(group.image.data)} if isinstance(group.image, File) else {}
        fits = (
            len(call) < CALL_GROUPS
            and responses + len(group.left) <= CALL_RESPONSES
            and chars + size <= CALL_CHARS
            and sum((images | image).values()) <= CALL_IMAGE_BYTES
            and not (one_image and image.keys() != images.keys())
        )
        if call and not fits:
            yield call
            call, images, responses, chars = [], {}, 0, 0
        call.append(group)
        images |= image
        responses += len(group.left)
        chars += size
    if call:
        yield call


def halves(call: list[Group]) -> tuple[list[Group], list[Group]] | None:
    """Returns two calls that hold what this one holds, or None if it has a single response."""
    if len(call) > 1:
        return call[: len(call) // 2], call[len(call) // 2 :]
    (group,) = call
    if len(group.left) < 2:
        return None
    middle = len(group.left) // 2
    first, second = (
        [Group(group.image, group.question, group.history, left, group.forgotten)]
        for left in (group.left[:middle], group.left[middle:])
    )
    return first, second
