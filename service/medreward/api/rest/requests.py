"""A request's bytes to a ScoreRequest. A wrong shape refuses the request; wrong content is refused item by item."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, TypeVar

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from medreward.api.rest.schemas import IMAGE_FORMS, GroupedRequest, Shape, TripleRequest
from medreward.api.structure import check_json
from medreward.engine.bodies import Share
from medreward.errors import Code, RequestError
from medreward.settings import Settings
from medreward.types import InlineImage, Item, Options, ScoreRequest

DETAILS: Final = {
    "missing": "this field is required",
    "string_type": "this field must be a text",
    "float_type": "this field must be a number",
    "finite_number": "this field must be a finite number",
    "list_type": "this field must be a list",
    "dict_type": "this field must be an object",
    "model_type": "this field must be an object",
    "model_attributes_type": "this field must be an object",
}
ECHOED: Final = re.compile(r"[A-Za-z0-9_]{1,64}")

S = TypeVar("S", bound=Shape)


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked, and the form it was asked in, which decides the form of the answer."""

    request: ScoreRequest
    shape: TripleRequest | GroupedRequest | None  # None: multipart

    @property
    def is_triple(self) -> bool:
        return not isinstance(self.shape, GroupedRequest) and len(self.request.items[0].responses) == 1

    def pointer(self, field: str) -> str:
        """The engine names fields as the full form has them (/items/0/images/0); name them as the client wrote them."""
        if not field.startswith("/items/"):
            return field
        _, _, number, *rest = field.split("/")
        grouped = isinstance(self.shape, GroupedRequest)
        written = self.shape.items[int(number)] if isinstance(self.shape, GroupedRequest) else self.shape
        if rest[:1] == ["images"] and (written is None or written.images is None):
            rest = ["image"]
        if rest[:1] == ["responses"] and (written is None or getattr(written, "responses", None) is None):
            rest = ["response"]
        return "/".join(["", "items", number, *rest] if grouped else ["", *rest])


async def read_body(request: Request, settings: Settings, share: Share) -> bytes:
    """The body within its limits of size and time."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(
            Code.MEDIA_TYPE, "this server reads no compressed bodies: send the body without Content-Encoding"
        )
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > settings.body_bytes:
        raise _too_large(settings)
    share.refuse(int(declared))
    body = bytearray()  # a list of chunks could take many times their size
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > settings.body_bytes:
                    raise _too_large(settings)
                share.grow(len(chunk))
                body += chunk
    except TimeoutError:
        raise RequestError(Code.SLOW_BODY, f"the body did not arrive within {settings.body_seconds:g} s") from None
    except ClientDisconnect:
        raise RequestError(Code.MALFORMED, "the connection ended before the whole body had arrived") from None
    return bytes(body)


async def read_call(request: Request, base: ScoreRequest, settings: Settings, share: Share) -> Call:
    """`base` holds what came in the headers."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return parse_json(await read_body(request, settings, share), base, settings)
    if kind == "multipart/form-data":
        return await _parse_multipart(request, await read_body(request, settings, share), base, settings)
    raise RequestError(Code.MEDIA_TYPE, "the body must be application/json or multipart/form-data")


def parse_json(body: bytes, base: ScoreRequest, settings: Settings) -> Call:
    check_json(body, settings)
    written = decode_json(body)
    if not isinstance(written, dict):
        raise RequestError(Code.INVALID_FIELD, "the body must be a JSON object")
    _refuse_too_many(written, settings)
    shape = checked(GroupedRequest, written) if "items" in written else checked(TripleRequest, written)
    return Call(replace(base, items=shape.to_items(), weights=shape.weights, options=shape.options.to_options()), shape)


def _refuse_too_many(written: dict[str, Any], settings: Settings) -> None:
    """Before anything is checked one by one: what is far beyond the limits must not cost seconds."""
    items = written.get("items")
    if not isinstance(items, list):
        return
    if len(items) > settings.items:
        raise RequestError(
            Code.TOO_MANY, f"the request has more than {settings.items} items: send it in parts", "/items"
        )
    for i, item in enumerate(items):
        responses = item.get("responses") if isinstance(item, dict) else None
        if isinstance(responses, list) and len(responses) > settings.responses:
            raise RequestError(
                Code.TOO_MANY,
                f"the item has more than {settings.responses} responses: send it in parts",
                f"/items/{i}/responses",
            )


def decode_json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except ValueError:  # bad UTF-8, bad JSON, a byte order mark, or a number of thousands of digits
        raise RequestError(Code.MALFORMED, "the body is not valid JSON") from None


def checked(shape: type[S], written: dict[str, Any]) -> S:
    try:
        return shape.model_validate(written)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        pointer = _pointer(written, first["loc"])
        if first["type"] == "extra_forbidden":
            raise RequestError(Code.UNKNOWN_FIELD, "this field is not known", pointer) from None
        raise RequestError(Code.INVALID_FIELD, _detail(first), pointer) from None


def _detail(error: ErrorDetails) -> str:
    """Our words, or those of our own validators; never the library's, which name classes."""
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":
        return f"this field must be one of {error['ctx']['expected']}"
    return DETAILS.get(error["type"], "this value has the wrong type")


def _pointer(written: Any, path: tuple[int | str, ...]) -> str:
    """JSON pointer to where pydantic's path leads; names of union members on that path are not keys of the body."""
    parts: list[str] = []
    keys = [part for part in path if part not in IMAGE_FORMS]
    for n, part in enumerate(keys):
        last = n == len(keys) - 1
        if isinstance(written, dict) and (part in written or last):
            written = written.get(part)
        elif isinstance(written, list) and isinstance(part, int) and part < len(written):
            written = written[part]
        else:
            continue
        if isinstance(part, str) and not ECHOED.fullmatch(part):
            break  # a key that may be anything is not sent back
        parts.append(str(part))
    return "/" + "/".join(parts) if parts else ""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestError(Code.MALFORMED, "a key is repeated in an object")
    return found


def _refuse_constant(_: str) -> NoReturn:
    raise RequestError(Code.MALFORMED, "NaN and Infinity are not JSON")


class Form(MultiPartParser):
    """Starlette's, but strict: few parts, and texts in UTF-8 whatever the client calls them."""

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self.parts = getattr(self, "parts", 0) + 1
        if self.parts > self.max_fields:
            raise RequestError(Code.TOO_MANY, "the form has too many parts")

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            self._current_part.data.decode("utf-8")
        super().on_part_end()


async def _parse_multipart(request: Request, body: bytes, base: ScoreRequest, settings: Settings) -> Call:
    form = Form(
        request.headers,
        _stream_of(body),
        max_files=1,
        max_fields=settings.responses + 2,  # a question and an image
        max_part_size=settings.body_bytes,
    )
    form.spool_max_size = settings.body_bytes  # images stay in memory: they are patients', and go to no disk
    try:
        fields = await form.parse()
    except (MultiPartException, ValueError):
        raise RequestError(Code.MALFORMED, "the body is not valid multipart/form-data") from None
    try:
        item = await _item_in(fields)
    finally:
        await fields.close()
    return Call(replace(base, items=(item,), options=Options()), None)


async def _stream_of(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _item_in(form: FormData) -> Item:
    if set(form) - {"image", "question", "response"}:
        raise RequestError(Code.UNKNOWN_FIELD, "the form has a field other than image, question and response", "")
    image, question, responses = form.get("image"), form.getlist("question"), form.getlist("response")
    if image is not None and not isinstance(image, UploadFile):
        raise RequestError(Code.INVALID_FIELD, "the image in a form must be a file", "/image")
    if len(question) != 1 or not isinstance(question[0], str):
        raise RequestError(Code.INVALID_FIELD, "the form must have question once, as text", "/question")
    texts = [response for response in responses if isinstance(response, str)]
    if not texts or len(texts) < len(responses):
        raise RequestError(Code.INVALID_FIELD, "the form must have response at least once, as text", "/response")
    images = (InlineImage(await image.read()),) if image is not None else ()
    return Item(question[0], tuple(texts), images)


def _too_large(settings: Settings) -> RequestError:
    return RequestError(Code.BODY_TOO_LARGE, f"the body has more than {settings.body_bytes} bytes")
