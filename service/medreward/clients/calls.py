"""Puts triples that share image and question into groups, and groups into calls."""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, cast

from medreward.clients.images import File, ImageLike, Source, load
from medreward.types import ImageSource, InlineImage, Item, StoredImage, Turn, UrlImage

CALL_GROUPS: Final = 16
CALL_RESPONSES: Final = 128
CALL_CHARS: Final = 2_000_000
CALL_IMAGE_BYTES: Final = 16 * 1024 * 1024  # so that a server's image store holds what is on its way
FORGETTINGS: Final = 2  # of an image, before it travels with the call


#: One image, several in a list or tuple, or None.
Images: TypeAlias = "ImageLike | Sequence[ImageLike]"


@dataclass(frozen=True, slots=True)
class Triple:
    """What `score_many` takes. A plain tuple of image, question and response will do as well."""

    image: Images
    question: str
    response: str
    history: tuple[Turn, ...] = ()
    department: str = ""  # whose expert scores it, where the model has one


@dataclass(slots=True, eq=False)
class Group:
    """One question about its images. `left` holds the responses that have no final score yet, each with its place in
    the result.
    """

    images: tuple[Source, ...]
    question: str
    history: tuple[Turn, ...]
    left: list[tuple[int, str]]
    department: str = ""
    forgotten: int = 0  # times the server did not know an image that was stored there

    @property
    def files(self) -> list[File]:
        """The images that are files here."""
        return [image for image in self.images if isinstance(image, File)]

    @property
    def stored_images(self) -> list[File]:
        """The files that the server shall store. Those that it forgot again and again travel with the call instead."""
        return self.files if self.forgotten < FORGETTINGS else []

    def item(self) -> Item:
        """Returns the group as an item of a call, with the responses that are left."""
        stored = self.stored_images
        sources: list[ImageSource] = []
        for image in self.images:
            if isinstance(image, File):
                sources.append(StoredImage(image.sha256) if stored else InlineImage(image.data))
            elif isinstance(image, UrlImage | StoredImage):
                sources.append(image)
        responses = tuple(response for _, response in self.left)
        return Item(self.question, responses, tuple(sources), self.history, department=self.department)


def home_of(asked: Group | Item) -> str:
    """Returns the key by which one of several servers is chosen: the image, or the question where there is none.

    What has the same key belongs together, for a server does the work on an image and a question once.
    """
    if isinstance(asked, Group) and asked.files:
        return asked.files[0].sha256
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
    """Returns a group for each question with its images, turns and department, in order of first appearance; none is
    larger than a call may be."""
    objects = {id(image): image for triple in triples for image in listed(triple.image)}
    loaded = await asyncio.gather(*(asyncio.to_thread(load, image) for image in objects.values()))
    sources = dict(zip(objects, loaded, strict=True))
    answers: dict[tuple[tuple[Source | str, ...], str, tuple[Turn, ...], str], list[tuple[int, str]]] = {}
    images: dict[tuple[Source | str, ...], tuple[Source, ...]] = {}
    for place, triple in enumerate(triples):
        own = tuple(sources[id(image)] for image in listed(triple.image))
        key = tuple(image.sha256 if isinstance(image, File) else image for image in own)
        images.setdefault(key, own)
        asked = key, triple.question, triple.history, triple.department
        answers.setdefault(asked, []).append((place, triple.response))
    return [
        group
        for (key, question, history, department), left in answers.items()
        for group in of_call_size(images[key], question, left, history, department)
    ]


def listed(images: Images) -> Sequence[ImageLike]:
    """Returns the images one by one; none for None. Raises TypeError for a list with None in it."""
    if isinstance(images, list | tuple):
        if any(image is None for image in images):
            raise TypeError("an image in the list is None: leave it out")
        return images
    return () if images is None else (cast("ImageLike", images),)  # the only sequences are lists and tuples


async def load_aside(images: Images) -> tuple[Source, ...]:
    """Returns the images as the client sends them; reads and converts them in a thread."""
    return tuple([await asyncio.to_thread(load, image) for image in listed(images)])


def of_call_size(
    images: tuple[Source, ...],
    question: str,
    left: list[tuple[int, str]],
    history: tuple[Turn, ...] = (),
    department: str = "",
) -> Iterator[Group]:
    """Yields groups of at most as many responses as a call may have."""
    for start in range(0, len(left), CALL_RESPONSES):
        yield Group(images, question, history, left[start : start + CALL_RESPONSES], department)


def pack(groups: Iterable[Group], one_image: bool) -> Iterator[list[Group]]:
    """Yields calls, which are groups that travel together. With `one_image` all groups of a call have the same
    images.
    """
    call: list[Group] = []
    images: dict[str, int] = {}
    responses = chars = 0
    for group in groups:
        size = len(group.question) + sum(len(response) for _, response in group.left)
        size += sum(len(turn.text) for turn in group.history)
        image = {file.sha256: len(file.data) for file in group.files}
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
    return [replace(group, left=group.left[:middle])], [replace(group, left=group.left[middle:])]
