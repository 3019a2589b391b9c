"""API keys: what one looks like, and the file that keeps their salted hashes, one JSON object a line."""

import hashlib
import os
import re
import secrets
import tempfile
from collections import Counter
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from medreward.errors import ConfigurationError
from medreward.types import Lane

FORMAT: Final = re.compile(r"mr_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")

Hex16 = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Rate = Annotated[float, Meta(gt=0)]


class Scope(StrEnum):
    SCORE = "score"
    METRICS = "metrics"
    ADMIN = "admin"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the file says of a key. A quota that is not there does not bind."""

    id: Hex16
    salt: Hex32
    hash: Hex64
    name: Annotated[str, Meta(max_length=100)]
    tenant: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
    lanes: Annotated[tuple[Lane, ...], Meta(min_length=1)] = tuple(Lane)
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = (Scope.SCORE,)
    requests_per_second: Rate | None = None
    triples_per_second: Rate | None = None
    burst_seconds: Rate = 10.0
    in_flight: Annotated[int, Meta(ge=1)] | None = None
    expires: Annotated[datetime, Meta(tz=True)] | None = None


def digest(salt: str, secret: str) -> str:
    """One round is enough: a secret is 32 random bytes, not a password, and a slow hash would be a way to flood us."""
    return hashlib.sha256(bytes.fromhex(salt) + secret.encode()).hexdigest()


def new_secret() -> tuple[str, str, str, str]:
    """The key's text, which nobody can have a second time, and the id, salt and hash that are kept of it."""
    id_, salt, secret = secrets.token_hex(8), secrets.token_hex(16), secrets.token_urlsafe(32)
    return f"mr_{id_}_{secret}", id_, salt, digest(salt, secret)


def read_keys(file: Path) -> list[Key]:
    keys = [key for _, key in _lines(file) if key]
    if twice := [id_ for id_, times in Counter(key.id for key in keys).items() if times > 1]:
        raise ConfigurationError(f"keys file {file}: the id {twice[0]} is in it twice: take one of its lines out")
    return keys


def add_key(file: Path, key: Key) -> None:
    """At the file's end; a new file is readable for its owner alone."""
    if file.exists():
        read_keys(file)
        if file.read_bytes()[-1:] not in (b"", b"\n"):
            raise ConfigurationError(f"keys file {file}: its last line does not end with a newline: add one")
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as end:
            end.write(msgspec.json.encode(key) + b"\n")
    except OSError as error:
        raise ConfigurationError(f"keys file {file}: {error.strerror}") from None


def remove_key(file: Path, id_: str) -> None:
    """Every other line stays as it is. The file is replaced at once, with its owner and mode."""
    lines = _lines(file)
    left = [line for line, key in lines if not key or key.id != id_]
    if len(left) == len(lines):
        raise ConfigurationError(f"keys file {file}: no key has the id {id_!r}")
    target = file.resolve()
    about = target.stat()
    try:
        handle, written = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as new:
            new.write(b"".join(left))
            os.fchmod(handle, about.st_mode & 0o777)
            if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(handle, about.st_uid, about.st_gid)
        Path(written).replace(target)
    except OSError as error:
        raise ConfigurationError(f"keys file {file}: {error.strerror}") from None


def _lines(file: Path) -> list[tuple[bytes, Key | None]]:
    """Each line and its key; blank lines and those that begin with # have none."""
    try:
        lines = file.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConfigurationError(f"keys file {file}: {error.strerror}") from None
    return [(line, _key(file, number, line)) for number, line in enumerate(lines, 1)]


def _key(file: Path, number: int, line: bytes) -> Key | None:
    if not line.strip() or line.startswith(b"#"):
        return None
    try:
        return msgspec.json.decode(line, type=Key)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"keys file {file}, line {number}: {error}") from None
