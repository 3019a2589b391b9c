"""Counts the values of a request before it is parsed, for to parse very many tiny values would stop the event loop for
seconds."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from medreward.errors import Code, RequestError
from medreward.settings import Settings

QUOTES_A_VALUE: Final = 4  # those of a key and of a text
STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
NO_BRACKETS: Final = bytes(set(range(256)) - set(STEPS))

VARINT, BYTES = 0, 2  # kinds of fields in protobuf's wire format
WIDTHS: Final = {1: 8, 5: 4}


def check_json(body: bytes, settings: Settings) -> None:
    """Refuses a JSON body of too many values or levels. It takes a few passes over the bytes, and takes texts out only
    where commas and brackets in them could make a difference."""
    opened = _opened(body)
    if opened <= settings.json_depth and opened + _count(body, b",") <= settings.json_values:
        return
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if unescaped.count(b'"') > QUOTES_A_VALUE * settings.json_values:
        raise _too_many(settings)
    outside = b"".join(unescaped.split(b'"')[::2])
    if _count(outside, b",") + _opened(outside) > settings.json_values:
        raise _too_many(settings)
    depths = accumulate(STEPS[bracket] for bracket in outside.translate(None, NO_BRACKETS))
    if max(depths, default=0) > settings.json_depth:
        raise RequestError(Code.JSON_TOO_DEEP, f"the body is nested more than {settings.json_depth} levels deep")


def check_message(message: bytes, nested: Sequence[int], settings: Settings) -> None:
    """Refuses a protobuf message of too many fields, those of the messages in its field `nested[0]` included, of theirs
    in `nested[1]`, and so on."""
    for seen, _ in enumerate(_fields_within(memoryview(message), nested), 1):
        if seen > settings.json_values:
            raise _too_many(settings)


def _fields_within(message: memoryview, nested: Sequence[int]) -> Iterator[int]:
    for number, content in _fields(message):
        yield number
        if nested and number == nested[0]:
            yield from _fields_within(content, nested[1:])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Gives each field's number, and its content if that is bytes. A message that is cut short ends this early, and is
    refused when it is read."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind, size = tag & 7, 0
        if kind in (VARINT, BYTES):
            size, at = _varint(message, at)
        content = message[at : at + size] if kind == BYTES else message[:0]
        yield tag >> 3, content
        at += size if kind == BYTES else WIDTHS.get(kind, 0)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns the number that begins here, and where it ends; 0 and the message's end where it is none."""
    value = 0
    for n, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, at + n + 1
    return 0, len(message)


def _opened(body: bytes) -> int:
    return _count(body, b"[") + _count(body, b"{")


def _count(body: bytes, character: bytes) -> int:
    """Counts a character; ten times as fast as bytes.count."""
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == character[0]))


def _too_many(settings: Settings) -> RequestError:
    return RequestError(Code.TOO_MANY, f"the request has more than {settings.json_values} values")
