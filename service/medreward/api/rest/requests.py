"""A body's bytes to items, weights and options. Here a wrong shape refuses the request; the engine then refuses wrong
content item by item."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from medreward.api.fields import ItemPointers
from medreward.api.observing import Entry
from medreward.api.rest.request_shapes import FORMS, GroupedRequest, RankRequest, TripleRequest
from medreward.api.shape import Shape
from medreward.api.structure import check_json
from medreward.engine.bodies import Reservation
from medreward.errors import Code, RequestError
from medreward.settings import Settings
from medreward.types import InlineImage, Item, Options, ScoreRequest

DETAILS: Final = {
    "missing": "this field is required",
    "string_type": "this field must be a text",
    "float_type": "this field must be a number",
    "finite_number": "this field must be a finite number",
    "too_short": "this list needs at least one entry",
    "int_type": "this field must be a whole number",
    "list_type": "this field must be a list",
    "dict_type": "this field must be an object",
    "model_type": "this field must be an object",
    "model_attributes_type": "this field must be an object",
    "greater_than_equal": "this field is below what it may be",
    "less_than_equal": "this field is above what it may be",
    "too_long": "this list has too many entries",
}
ECHOED: Final = re.compile(r"[A-Za-z0-9_]{1,64}")

S = TypeVar("S", bound=Shape)
Forms = tuple[type[TripleRequest] | type[RankRequest], type[GroupedRequest] | None]


@dataclass(frozen=True, slots=True)
class ScoreBody:
    """What the body of a request to score holds. That of one triple has its error as the answer's status, not as that
    of a result."""

    items: tuple[Item, ...]
    pointers: tuple[ItemPointers, ...]  # one for each item
    is_triple: bool
    weights: dict[str, float] | None
    options: Options
    viewpoint: str | None = None
    shape: Shape | None = None  # the JSON as it was read; None for a form

    def to_request(self, entry: Entry, headers: Headers, deadline_s: float | None) -> ScoreRequest:
        """Returns what the engine is asked, in the lane of the entry and for its caller's tenant."""
        return ScoreRequest(
            id=entry.request_id,
            items=self.items,
            weights=self.weights,
            options=self.options,
            lane=entry.lane,
            deadline_s=deadline_s,
            fingerprint=headers.get("x-model-fingerprint"),
            tenant=entry.caller.tenant,
            viewpoint=self.viewpoint,
            trace=entry.recorded,
        )


async def read_body(request: Request, settings: Settings, room: Reservation) -> bytes:
    """Returns the body. Refuses one that is compressed, too large or too slow, or for which there is no memory."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(
            Code.MEDIA_TYPE, "this server reads no compressed bodies: send the body without Content-Encoding"
        )
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > settings.body_bytes:
        raise _too_large(settings)
    room.check(int(declared))
    body = bytearray()  # a list of chunks could take many times their size
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > settings.body_bytes:
                    raise _too_large(settings)
                room.grow(len(chunk))
                body += chunk
    except TimeoutError:
        raise RequestError(Code.SLOW_BODY, f"the body did not arrive within {settings.body_seconds:g} s") from None
    except ClientDisconnect:
        raise RequestError(Code.MALFORMED, "the connection ended before the whole body had arrived") from None
    return bytes(body)


async def read_score_body(
    request: Request, settings: Settings, room: Reservation, forms: Forms = (TripleRequest, GroupedRequest)
) -> ScoreBody:
    """Reads and parses the body, by its Content-Type. Refuses a type that is not JSON or a form, a body beyond a
    limit, and a shape that is not one of the contract's. `forms` are the shapes of one triple and of many."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return parse_json(await read_body(request, settings, room), settings, forms)
    if kind == "multipart/form-data":
        return await _parse_multipart(request, await read_body(request, settings, room), settings)
    raise RequestError(Code.MEDIA_TYPE, "the body must be application/json or multipart/form-data")


def parse_json(body: bytes, settings: Settings, forms: Forms = (TripleRequest, GroupedRequest)) -> ScoreBody:
    """Parses either of the two JSON forms: the grouped one has `items`, the other is one triple, or one group."""
    check_json(body, settings)
    fields = decode_json(body)
    if not isinstance(fields, dict):
        raise RequestError(Code.INVALID_FIELD, "the body must be a JSON object")
    one_form, grouped_form = forms
    if grouped_form is None or "items" not in fields:
        _refuse_too_many_responses(fields, settings, "")
        one = checked(one_form, fields)
        is_triple = isinstance(one, TripleRequest)
        pointers, options = one.pointers("", "response" if is_triple else None), one.options.to_options()
        return ScoreBody((one.to_item(),), (pointers,), is_triple, one.weights, options, one.viewpoint, one)
    _refuse_too_many(fields["items"], settings)
    grouped = checked(grouped_form, fields)
    return ScoreBody(
        items=tuple(item.to_item() for item in grouped.items),
        pointers=tuple(
            item.pointers(f"/items/{i}", "response" if item.responses is None else None)
            for i, item in enumerate(grouped.items)
        ),
        is_triple=False,
        weights=grouped.weights,
        options=grouped.options.to_options(),
        viewpoint=grouped.viewpoint,
        shape=grouped,
    )


def _refuse_too_many(items: object, settings: Settings) -> None:
    """Refuses too many items or responses before they are checked one by one. The engine counts again, for both doors,
    but what is far beyond the limits must not cost the time until then."""
    if not isinstance(items, list):
        return
    if len(items) > settings.items:
        raise RequestError(
            Code.TOO_MANY, f"the request has more than {settings.items} items: send it in parts", "/items"
        )
    for i, item in enumerate(items):
        _refuse_too_many_responses(item, settings, f"/items/{i}")


def _refuse_too_many_responses(item: object, settings: Settings, pointer: str) -> None:
    responses = item.get("responses") if isinstance(item, dict) else None
    if isinstance(responses, list) and len(responses) > settings.responses:
        detail = f"the item has more than {settings.responses} responses: send it in parts"
        raise RequestError(Code.TOO_MANY, detail, f"{pointer}/responses")


def decode_json(body: bytes) -> Any:
    """Parses by the letter of JSON: refuses repeated keys, NaN and Infinity too, which Python's parser takes."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except ValueError:  # bad UTF-8, bad JSON, a byte order mark, or a number of thousands of digits
        raise RequestError(Code.MALFORMED, "the body is not valid JSON") from None


def checked(shape: type[S], fields: dict[str, Any]) -> S:
    """Returns the fields as this shape; refuses the first that does not fit it, with a pointer to it."""
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        pointer = _pointer(fields, first["loc"])
        if first["type"] == "extra_forbidden":
            raise RequestError(Code.UNKNOWN_FIELD, "this field is not known", pointer) from None
        raise RequestError(Code.INVALID_FIELD, _detail(first), pointer) from None


def _detail(error: ErrorDetails) -> str:
    """Returns our own text, or that of one of our validators; never the library's, which names classes."""
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":
        return f"this field must be one of {error['ctx']['expected']}"
    return DETAILS.get(error["type"], "this value has the wrong type")


def _pointer(value: Any, path: tuple[int | str, ...]) -> str:
    """Returns the JSON pointer to where pydantic's path leads. Its path also names members of unions, which are no keys
    of the body."""
    parts: list[str] = []
    keys = [part for part in path if part not in FORMS]
    for n, part in enumerate(keys):
        last = n == len(keys) - 1
        if isinstance(value, dict) and (part in value or last):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        if isinstance(part, str) and not ECHOED.fullmatch(part):
            break  # a key that may be anything is not sent back
        parts.append(str(part))
    return "/" + "/".join(parts) if parts else ""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RequestError(Code.MALFORMED, "a key is repeated in an object")
    return fields


def _refuse_constant(_: str) -> NoReturn:
    raise RequestError(Code.MALFORMED, "NaN and Infinity are not JSON")


class FormParser(MultiPartParser):
    """Starlette's parser, but strict: it refuses a form of too many parts, and texts that are not UTF-8, whatever
    encoding the client names."""

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self.parts = getattr(self, "parts", 0) + 1
        if self.parts > self.max_fields:
            raise RequestError(Code.TOO_MANY, "the form has too many parts")

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            self._current_part.data.decode("utf-8")
        super().on_part_end()


async def _parse_multipart(request: Request, body: bytes, settings: Settings) -> ScoreBody:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = FormParser(
        request.headers,
        whole(),
        max_files=1,
        max_fields=settings.responses + 2,  # a question and an image
        max_part_size=settings.body_bytes,
    )
    parser.spool_max_size = settings.body_bytes  # images stay in memory: they are patients', and go to no disk
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError):
        raise RequestError(Code.MALFORMED, "the body is not valid multipart/form-data") from None
    try:
        item = await _item_of(form)
    finally:
        await form.close()
    pointers = ItemPointers("", "image", "response")
    return ScoreBody((item,), (pointers,), len(item.responses) == 1, weights=None, options=Options())


async def _item_of(form: FormData) -> Item:
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
