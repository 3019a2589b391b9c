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
    OVERRIDE = "override"
    METRICS = "metrics"
    ADMIN = "admin"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of the file. A quota that is None does not limit the key."""

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
    """Returns the hash that the file keeps of a secret. One round is enough: a secret is 32 random bytes, no password,
    and with a slow hash strangers could keep the server busy."""
    return hashlib.sha256(bytes.fromhex(salt) + secret.encode()).hexdigest()


def new_secret() -> tuple[str, str, str, str]:
    """Returns a new key's text, which is shown once and not kept, and its id, salt and hash for the file."""
    id_, salt, secret = secrets.token_hex(8), secrets.token_hex(16), secrets.token_urlsafe(32)
    return f"mr_{id_}_{secret}", id_, salt, digest(salt, secret)


def read_keys(file: Path) -> list[Key]:
    """Returns the file's keys. Fails where it cannot be read, a line is no key, or an id is in it twice."""
    keys = [key for _, key in _lines(file) if key]
    if twice := [id_ for id_, times in Counter(key.id for key in keys).items() if times > 1]:
        raise ConfigurationError(f"keys file {file}: the id {twice[0]} is in it twice: take one of its lines out")
    return keys


def add_key(file: Path, key: Key) -> None:
    """Appends the key to the file, which must be whole. A new file is readable for its owner alone."""
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
    """Removes the key's line and leaves every other as it is. The file is replaced in one step and keeps its owner and
    mode. Fails where no key has this id."""
    lines = _lines(file)
    kept = [line for line, key in lines if not key or key.id != id_]
    if len(kept) == len(lines):
        raise ConfigurationError(f"keys file {file}: no key has the id {id_!r}")
    target = file.resolve()
    about = target.stat()
    try:
        handle, new_file = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as new:
            new.write(b"".join(kept))
            os.fchmod(handle, about.st_mode & 0o777)
            if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(handle, about.st_uid, about.st_gid)
        Path(new_file).replace(target)
    except OSError as error:
        raise ConfigurationError(f"keys file {file}: {error.strerror}") from None


def _lines(file: Path) -> list[tuple[bytes, Key | None]]:
    """Returns each line with its key; blank lines and those that begin with # have none."""
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
