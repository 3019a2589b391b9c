"""Rows of a JSONL or Parquet file, one at a time, and what each of them asks."""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from medreward.cli.extras import install
from medreward.clients.images import Source, Unreadable, load
from medreward.errors import Code, ConfigurationError, ItemError, MedRewardError, RequestError
from medreward.types import StoredImage, Turn, UrlImage

SUFFIXES: Final = (".jsonl", ".parquet")
SHARED: Final = ("image", "images", "question", "history")  # by the responses of a group
ITEM: Final = (*SHARED, "response", "responses")
BASE64: Final = re.compile("[A-Za-z0-9+/]+={0,2}")
PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")  # of an error, as msgspec writes it
FIELD: Final = re.compile(r"(?:missing required|unknown) field `(\w+)`")
S = TypeVar("S", bound=msgspec.Struct)
LONGEST_PATH: Final = 4096
PARQUET_ROWS: Final = 32  # at a time, for a row may hold an image; pyarrow itself holds a row group


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    fields: Mapping[str, Any] | None  # None: the line is no JSON object


class ImageShape(msgspec.Struct, forbid_unknown_fields=True):
    base64: str | None = None
    sha256: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.base64, self.sha256, self.url)) != 1:
            raise ValueError("an image is one of base64, sha256 and url")


class PartShape(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    image: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise ValueError("a part is either a text or an image")


class TurnShape(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str | list[PartShape]

    def turn(self) -> Turn:
        """Returns it as a client sends it."""
        if isinstance(self.content, str):
            return Turn(self.role, self.content)
        return Turn(self.role, tuple(part.text if part.text is not None else part.image or 0 for part in self.content))


class ItemShape(msgspec.Struct):
    question: str
    image: Any = None
    images: list[Any] | None = None
    history: list[TurnShape] = []
    responses: list[str] | None = None
    response: str | None = None

    def __post_init__(self) -> None:
        if (self.response is None) == (self.responses is None):
            raise ValueError("an item has either responses or response")
        if self.image is not None and self.images is not None:
            raise ValueError("image and images exclude each other")

    @property
    def turns(self) -> list[Turn]:
        return [turn.turn() for turn in self.history]

    @property
    def texts(self) -> list[str]:
        return self.responses if self.responses is not None else [self.response or ""]


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def read_rows(path: Path, start: int = 0, columns: Collection[str] = (*ITEM, "id")) -> Iterator[Row]:
    """Gives the rows from number `start` on; empty lines are no rows. Of Parquet these columns are read alone."""
    return _parquet_rows(path, start, columns) if is_parquet(path) else _json_rows(path, start)


def _json_rows(path: Path, start: int) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(line for line in file if not line.isspace()):
            if number < start:
                continue
            yield json_row(number, line)


def json_row(number: int, line: bytes) -> Row:
    """Returns the row of a line, without fields where the line is no JSON object."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    return Row(number, fields if isinstance(fields, dict) else None)


def _parquet_rows(path: Path, start: int, wanted: Collection[str]) -> Iterator[Row]:
    file = open_parquet(path)
    columns = [name for name in file.schema_arrow.names if name in wanted]
    batches = file.iter_batches(PARQUET_ROWS, columns=columns)
    number = 0
    while True:
        try:
            batch = next(batches, None)
        except (OSError, ValueError):  # pyarrow's errors are kinds of these
            raise ConfigurationError(f"{path} is damaged") from None
        if batch is None:
            return
        if number + batch.num_rows > start:
            yield from (Row(n, fields) for n, fields in enumerate(batch.to_pylist(), number) if n >= start)
        number += batch.num_rows


def count_rows(path: Path) -> int:
    if is_parquet(path):
        rows: int = open_parquet(path).metadata.num_rows
        return rows
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


def group_rows(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Joins rows that follow each other and share image and question, up to `size` of them."""
    for _, alike in groupby(rows, lambda row: [row.fields.get(key) for key in SHARED] if row.fields else row.number):
        while group := list(islice(alike, size)):
            yield group


def read_item(row: Row) -> ItemShape:
    """Returns what the row asks. Raises RequestError where it has not the shape of an item."""
    if row.fields is None:
        raise RequestError(Code.MALFORMED, "the line is not a JSON object")
    item = _checked(ItemShape, {key: row.fields[key] for key in ITEM if row.fields.get(key) is not None}, "/items/0")
    if item.responses == []:
        raise RequestError(Code.INVALID_FIELD, "at least one response is needed", "/items/0/responses")
    return item


def read_images(item: ItemShape, folder: Path) -> list[Source]:
    """Returns the item's images; `folder` is where their paths begin. Raises the error that its row then has."""
    if item.images is None:
        image = _image(item.image, folder, "/items/0/image")
        return [] if image is None else [image]
    images = [_image(image, folder, f"/items/0/images/{place}") for place, image in enumerate(item.images)]
    if None in images:
        raise RequestError(
            Code.INVALID_FIELD, "an image is null: leave it out", f"/items/0/images/{images.index(None)}"
        )
    return images


def import_pyarrow() -> ModuleType:
    """Returns pyarrow; raises ConfigurationError, with how to install it, where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(
            f"Parquet files need pyarrow, which is not installed; run {install('parquet')}"
        ) from None
    arrow: ModuleType = pyarrow
    return arrow


def open_parquet(path: Path) -> Any:
    pyarrow = import_pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except pyarrow.ArrowInvalid:
        raise ConfigurationError(f"{path} is not a Parquet file") from None


def _checked(shape: type[S], value: Any, field: str) -> S:
    """Returns the value in this shape; raises RequestError, with a pointer behind `field`, where it has another."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        message = str(error)
        place, name = PLACE.search(message), FIELD.search(message)
        path = re.split(r"[\[\].]+", place[1].rstrip("]")) if place else []
        code = Code.UNKNOWN_FIELD if "unknown field" in message else Code.INVALID_FIELD
        pointer = "/".join([field, *filter(None, path), *(name.groups() if name else ())])
        raise RequestError(code, PLACE.sub("", message), pointer) from None


def _image(value: Any, folder: Path, field: str) -> Source:
    """Reads a path, base64, bytes, an object of the contract, or the struct that data sets of the hub have."""
    if isinstance(value, Mapping) and not {"bytes", "path"}.isdisjoint(value):
        value = value.get("bytes") or value.get("path")
    elif isinstance(value, Mapping):
        image = _checked(ImageShape, value, field)
        if image.url is not None:
            return UrlImage(image.url)
        if image.sha256 is not None:
            return StoredImage(image.sha256)
        return _from_base64(image.base64 or "")
    if value is None or isinstance(value, bytes):
        return load(value)
    if not isinstance(value, str):
        raise RequestError(Code.INVALID_FIELD, "an image is a path, base64, bytes or an object", field)
    try:
        if value and len(value) < LONGEST_PATH and (folder / value).is_file():
            return load((folder / value).read_bytes())
    except (OSError, ValueError):
        raise _unreadable(field) from None
    if value and not BASE64.fullmatch(value):
        raise _unreadable(field)
    return _from_base64(value)


def _from_base64(text: str) -> Source:
    try:
        return load(b64decode(text, validate=True)) if text else Unreadable("the image is empty")
    except binascii.Error:
        return Unreadable("the image is not valid base64")


def _unreadable(field: str) -> MedRewardError:
    return ItemError(Code.IMAGE_FETCH_FAILED, "the image is neither a file that can be read nor base64", field)
