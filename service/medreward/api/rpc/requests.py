"""A gRPC message's bytes to a ScoreRequest, or to a ScreenRequest."""

from collections.abc import Sequence
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from medreward.api.fields import DEPARTMENT_CHARS, MOST_FRAMES, option, read_deadline, read_lane
from medreward.api.observing import Entry
from medreward.api.rpc.status import Context
from medreward.api.structure import check_message
from medreward.engine.checks import check_step_count
from medreward.errors import Code, RequestError
from medreward.proto import reward_pb2 as pb
from medreward.screening.screening import ScreenRequest
from medreward.settings import Settings
from medreward.types import (
    Explain,
    FileSource,
    FrameImage,
    ImageSource,
    InlineImage,
    Item,
    Lane,
    Options,
    ScoreRequest,
    StepEnds,
    Steps,
    StoredImage,
    Thinking,
    TooLong,
    Turn,
    UrlImage,
    Viewpoints,
)

ROLES: Final = ("system", "user", "assistant")

M = TypeVar("M", bound=Message)
Scorable = pb.ScoreRequest | pb.ScreenRequest  # they name what is to be scored alike


def metadata_of(context: Context) -> dict[str, str]:
    """Returns the call's metadata without those whose values are bytes."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def read_message(kind: type[M], message: bytes, settings: Settings) -> M:
    """Returns the message. It is refused when it has too many fields or an unknown one, or cannot be read."""
    nested = (pb.ScoreRequest.ITEMS_FIELD_NUMBER, pb.Item.HISTORY_FIELD_NUMBER)
    read = parse_message(kind, message, nested, settings)
    size = read.ByteSize()
    read.DiscardUnknownFields()
    if read.ByteSize() < size:
        raise RequestError(Code.UNKNOWN_FIELD, "the message has a field that is not known")
    if isinstance(read, Scorable):  # before millions of numbers, which a small message may hold, are objects
        check_step_count(len(read.options.step_ends), settings)
    return read


def parse_message(kind: type[M], message: bytes, nested: Sequence[int], settings: Settings) -> M:
    """Returns the message, whatever fields it has; refused when they are too many, for which those in the fields
    `nested` are counted too, or when it cannot be read."""
    check_message(message, nested, settings)
    try:
        return kind.FromString(message)
    except DecodeError:
        raise RequestError(Code.MALFORMED, "the message cannot be read") from None


def lane_of(request: Scorable, context: Context, default: Lane = Lane.BULK) -> Lane:
    """Returns the lane that the message asks for, or else the metadata; refuses one that does not exist."""
    return read_lane(request.lane or metadata_of(context).get("x-lane"), default)


def score_request(request: Scorable, context: Context, entry: Entry, id_: str) -> ScoreRequest:
    """Returns what the engine is asked; a field of the message counts before metadata of the same meaning. Refuses a
    value that a field cannot have."""
    metadata = metadata_of(context)
    deadlines = [context.time_remaining(), read_deadline(metadata.get("x-deadline-ms"))]
    return ScoreRequest(
        id=id_,
        items=tuple(_item(i, item) for i, item in enumerate(request.items)),
        weights=dict(request.weights),
        options=Options(
            option(TooLong, request.options.too_long or TooLong.ERROR, "/options/too_long"),
            option(Thinking, request.options.thinking or Thinking.KEEP, "/options/thinking"),
            option(Explain, request.options.explain or Explain.NONE, "/options/explain"),
            _steps(request.options),
            option(Viewpoints, request.options.viewpoints or Viewpoints.NONE, "/options/viewpoints"),
        ),
        lane=entry.lane,
        deadline_s=min((deadline for deadline in deadlines if deadline is not None), default=None),
        fingerprint=request.expect_fingerprint or metadata.get("x-model-fingerprint"),
        tenant=entry.caller.tenant,
        viewpoint=request.viewpoint or None,
        trace=entry.recorded,
    )


def screen_request(request: pb.ScreenRequest, context: Context, entry: Entry) -> ScreenRequest:
    """Returns what the screening is asked. Refuses departments that are not one for each item."""
    departments = tuple(request.departments) or tuple(item.department for item in request.items)
    if departments and len(departments) != len(request.items):
        detail = f"there must be a department for each of the {len(request.items)} items, or none"
        raise RequestError(Code.INVALID_FIELD, detail, "/departments")
    for i, department in enumerate(departments):
        if len(department) > DEPARTMENT_CHARS:
            detail = f"a department's name has at most {DEPARTMENT_CHARS} characters"
            raise RequestError(Code.INVALID_FIELD, detail, f"/departments/{i}")
    asked = score_request(request, context, entry, entry.request_id)
    return ScreenRequest(asked, request.policy or None, departments, entry.caller.id)


def _steps(options: pb.Options) -> StepEnds:
    """Returns where steps end; refuses a message that says so twice."""
    if not options.step_ends:
        return option(Steps, options.steps or Steps.NONE, "/options/steps")
    if options.steps:
        raise RequestError(Code.INVALID_FIELD, "steps and step_ends exclude each other", "/options/steps")
    return tuple(options.step_ends)


def _item(i: int, item: pb.Item) -> Item:
    for t, turn in enumerate(item.history):
        if turn.role not in ROLES:
            raise RequestError(
                Code.INVALID_FIELD, f"role must be one of: {', '.join(ROLES)}", f"/items/{i}/history/{t}/role"
            )
    images = tuple(source for n, image in enumerate(item.images) for source in _images(image, f"/items/{i}/images/{n}"))
    if len(item.department) > DEPARTMENT_CHARS:
        detail = f"a department's name has at most {DEPARTMENT_CHARS} characters"
        raise RequestError(Code.INVALID_FIELD, detail, f"/items/{i}/department")
    turns = tuple(_turn(turn, f"/items/{i}/history/{t}") for t, turn in enumerate(item.history))
    return Item(item.question, tuple(item.responses), images, turns, department=item.department)


def _turn(turn: pb.Turn, pointer: str) -> Turn:
    """Returns the turn; refuses one whose content is given in both ways, and a part that is neither text nor image."""
    if not turn.parts:
        return Turn(turn.role, turn.content)
    if turn.content:
        raise RequestError(Code.INVALID_FIELD, "content and parts exclude each other", f"{pointer}/parts")
    parts: list[str | int] = []
    for p, part in enumerate(turn.parts):
        kind = part.WhichOneof("part")
        if kind is None:
            raise RequestError(Code.INVALID_FIELD, "a part is either a text or an image", f"{pointer}/parts/{p}")
        parts.append(part.text if kind == "text" else part.image)
    return Turn(turn.role, tuple(parts))


def _images(image: pb.Image, pointer: str) -> list[ImageSource]:
    """Returns the image, or an image for each of its frames that are wanted; refuses too many of them."""
    file = _file(image)
    if not image.even_frames and not image.frames:
        return [file]
    if image.even_frames and image.frames:
        raise RequestError(Code.INVALID_FIELD, "even_frames and frames exclude each other", f"{pointer}/frames")
    if max(image.even_frames, len(image.frames)) > MOST_FRAMES:
        raise RequestError(Code.INVALID_FIELD, "this field is above what it may be", f"{pointer}/frames")
    if image.frames:
        return [FrameImage(file, number) for number in image.frames]
    return [FrameImage(file, place, image.even_frames) for place in range(image.even_frames)]


def _file(image: pb.Image) -> FileSource:
    match image.WhichOneof("source"):
        case "sha256":
            return StoredImage(image.sha256)
        case "url":
            return UrlImage(image.url)
        case _:
            return InlineImage(image.data)
