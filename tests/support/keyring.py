"""A file of API keys for a server under test."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from medreward.api.access.keys import Key, Scope, add_key, new_secret, remove_key
from medreward.types import Lane


@dataclass(frozen=True)
class KeysFile:
    path: Path

    def new(
        self,
        tenant: str = "a",
        lanes: Iterable[Lane] = Lane,
        scopes: Iterable[Scope] = (Scope.SCORE,),
        requests_per_second: float | None = None,
        triples_per_second: float | None = None,
        in_flight: int | None = None,
        expires: datetime | None = None,
    ) -> str:
        """The text of a new key."""
        text, id_, salt, hash_ = new_secret()
        quotas = requests_per_second, triples_per_second, 10.0, in_flight
        add_key(self.path, Key(id_, salt, hash_, "test", tenant, tuple(lanes), tuple(scopes), *quotas, expires))
        return text

    def revoke(self, text: str) -> None:
        remove_key(self.path, text.split("_")[1])


def bearer(key: str) -> dict[str, str]:
    """As headers and as metadata."""
    return {"authorization": f"Bearer {key}"}
