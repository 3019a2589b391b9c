"""Strings to token ids, so that no text of a stranger can become a control token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from medreward.types import Flag


class Tokenizer(Protocol):
    """What the encoder asks of a tokenizer."""

    @property
    def control_tokens(self) -> dict[str, int]:
        """The strings that mean something to the model beyond their letters."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, none of them a control token's."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    ids: Sequence[int]
    flags: tuple[Flag, ...] = ()
