"""AReaL's reward function; docs/trainers/areal.md shows how to use it."""

from collections.abc import Sequence
from typing import Any, Final, Unpack

from medreward.clients.calls import Triple
from medreward.clients.images import ImageLike
from medreward.clients.rewarding import RewardSource, SourceOptions
from medreward.clients.rows import listed, plain_question, turns_in, without_end_mark
from medreward.types import Turn

#: AReaL takes a function that has not returned after 15 s for one that gave 0. An error makes it try again instead.
WITHIN_S: Final = 12.0


class RewardFunction:
    """What AReaL calls for each answer, in processes of its own; each of them makes one client.

    It returns a reward within 12 s or raises NotScored, whatever Client's `patience` is. The image is that of
    the row's `images`; the question is its `question_column`, or the last user turn of its `messages`.
    """

    def __init__(
        self,
        url: str,
        *,
        question_column: str = "question",
        **how: Unpack[SourceOptions],
    ) -> None:
        how.setdefault("timeout", WITHIN_S)
        self._source = RewardSource(url, **how)
        self._question_column = question_column

    def __call__(
        self, prompt: str, completions: str, prompt_ids: Sequence[int], completion_ids: Sequence[int], **row: Any
    ) -> float:
        where = f"in a column of its own, and name it with question_column (here {self._question_column!r})"
        question = row.get(self._question_column)
        images: list[ImageLike] = listed(row.get("images"))
        turns: tuple[Turn, ...] = ()
        if question is None:
            asked = row.get("messages_chat") or row.get("messages") or prompt
            question, turns = plain_question(asked, where), turns_in(asked, len(images))
        triple = Triple(images, question, without_end_mark(completions), turns)
        (reward,) = self._source.rewards([triple], within=WITHIN_S)
        return reward.value
