"""The key of an audit log: digests made with it cannot be guessed by hashing all likely texts."""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medreward.errors import ConfigurationError

HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, repr=False)
class AuditKey:
    """32 random bytes."""

    secret: bytes

    @property
    def fingerprint(self) -> str:
        """A name of the key, from which nobody finds the key."""
        return hashlib.sha256(b"medreward audit key " + self.secret).hexdigest()[:16]

    def digest(self, payload: str | bytes) -> str:
        """Returns the digest that the log has of a text or of an image file."""
        data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
        return self.digest_of(hashlib.sha256(data).hexdigest())

    def digest_of(self, sha256: str) -> str:
        """Returns the digest that the log has of a payload with this SHA-256 (hex digits)."""
        return hmac.digest(self.secret, sha256.encode(), "sha256").hex()


def default_key_file(log: Path) -> Path:
    """Returns where the key of a log stands unless a setting says otherwise: beside the log."""
    return log.with_name(f"{log.name}.key")


def read_key(file: Path) -> AuditKey:
    """Returns the key in a file of 64 hex digits. Fails with a ConfigurationError where there is none."""
    try:
        text = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text of hex digits"
        raise ConfigurationError(f"audit key file {file}: {reason}") from None
    if not HEX.fullmatch(text):
        raise ConfigurationError(f"audit key file {file}: it must hold 64 hex digits (0-9, a-f) and nothing else")
    return AuditKey(bytes.fromhex(text))


def make_key(file: Path) -> AuditKey:
    """Writes a new key into a file that its owner alone can read, and returns it. Fails where the file exists."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as new:
            new.write(f"{secrets.token_hex(32)}\n")
            new.flush()
            os.fsync(handle)
    except OSError as error:
        raise ConfigurationError(f"audit key file {file}: {error.strerror}") from None
    return read_key(file)
