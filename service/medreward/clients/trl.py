"""Reward functions for TRL's GRPOTrainer and RLOOTrainer; docs/trainers/trl.md shows how to use them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Unpack

from medreward.clients import Client, NotScored, Score, Triple
from medreward.clients.rewarding import LastBatch, check_reached
from medreward.clients.rows import Pictures, Text
from medreward.clients.shaping import Rewards, Shaping, length_correlation
from medreward.clients.sync import ClientOptions, RewardOptions
from medreward.clients.trl_batch import Columns
from medreward.clients.trl_logs import NAME, keep_to_one_model, log_batch, log_dimensions
from medreward.types import DIMENSIONS, Thinking, TooLong, Viewpoints

RewardFunction: TypeAlias = Any  # a list of anything narrower is not the list that TRL asks for


def reward_funcs(
    server: str | Client,
    *,
    weights: Mapping[str, float] | None = None,
    viewpoint: str | None = None,
    per_dimension: bool = False,
    image_column: str | None = None,
    question_column: str | None = None,
    allow_text_only: bool = False,
    too_long: TooLong | str = TooLong.ERROR,
    thinking: Thinking | str = Thinking.KEEP,
    shaping: Shaping | None = None,
    asynchronous: bool = False,
    **options: Unpack[ClientOptions],
) -> list[RewardFunction]:
    """Returns what the trainer takes as `reward_funcs`: one function that gives the weighted reward, or six that share
    a call.

    `server` is a URL, with Client's options beside it, or a Client. The six give logits, the terms of the reward:
    their weights are the trainer's `reward_weights`. A response that could not be scored gives None, which TRL leaves
    out; with `strict` it stops the run with NotScored.

    Images are those of `image_column`, by default `images` or `image`, and where there is none, those in the prompt. A
    prompt that shows an image of which none is found raises ValueError, unless `allow_text_only`. The question is the
    text of `question_column`, by default the prompt's last user turn, with the turns before it, which show their images
    where the prompt has them. A model that reads no turns is asked without them, and a warning says so once.

    The model that gave the rewards is noted in the trainer's log, which its checkpoints hold. With `pin` true, Client's
    default, a run that is resumed against another model raises VersionChanged; a fingerprint as `pin` accepts that one.
    """
    if viewpoint is not None and (weights or per_dimension):
        raise ValueError("viewpoint is a set of weights: leave weights and per_dimension out beside it")
    if shaping and shaping.normalise_viewpoints and (weights or viewpoint is not None or per_dimension):
        raise ValueError(
            "normalise_viewpoints takes the rewards under all viewpoints: leave weights, viewpoint and "
            "per_dimension out beside it"
        )
    if per_dimension and weights:
        raise ValueError("with per_dimension=True, give the weights to the trainer, as reward_weights")
    if per_dimension and shaping and shaping.normalise_dimensions:
        raise ValueError(
            'with per_dimension=True, the trainer normalises: give it multi_objective_aggregation="normalize_then_sum"'
        )
    if shaping and shaping.needs_weights and not weights and not per_dimension:
        raise ValueError("this shaping adds the dimensions up itself: give it weights={dimension: weight}")
    how: RewardOptions = {"weights": weights, "too_long": TooLong(too_long), "thinking": Thinking(thinking)}
    if viewpoint is not None:
        how["viewpoint"] = viewpoint
    if shaping and shaping.normalise_viewpoints:
        how["viewpoints"] = Viewpoints.ALL
    batches = Batches(server, options, Columns(image_column, question_column, allow_text_only), how)
    kind = AsyncReward if asynchronous else Reward
    return [kind(batches, dimension, shaping, weights) for dimension in (DIMENSIONS if per_dimension else (None,))]


@dataclass(frozen=True, slots=True)
class Batch:
    """A trainer's batch and its scores."""

    triples: Sequence[Triple | Score]
    scores: Sequence[Score]


class Batches:
    """Asks the server once for each batch, however many functions are called with it."""

    def __init__(self, server: str | Client, options: ClientOptions, columns: Columns, how: RewardOptions) -> None:
        if options and not isinstance(server, str):
            raise TypeError(f"a Client has its own options already: give {', '.join(options)} where it is made")
        self._state = (server, options, columns, how)
        self.client = Client(server, **options) if isinstance(server, str) else server
        self._columns = columns
        self._pictures = Pictures()
        self._how = how
        self._strict = options.get("strict", False)
        self._last: LastBatch[Sequence[Triple | Score], Batch] = LastBatch()

    def __reduce__(self) -> tuple[Any, ...]:
        return Batches, self._state  # a copy has a client of its own

    def get(
        self, function: str, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]
    ) -> Batch:
        """Returns the batch with its scores. Functions that come with the same batch, to the last pixel, share a call.

        A function that comes with it a second time has begun a new step, which has scores and log lines of its own.
        Fails with NotScored in strict mode, with Refused where a server never gave a score, and with VersionChanged.
        """

        def triples() -> Sequence[Triple | Score]:
            return self._columns.triples(prompts, completions, columns, self._pictures)

        def ask(triples: Sequence[Triple | Score]) -> Batch:
            batch = self._asked(triples)
            keep_to_one_model(self.client, columns)  # rewards of a refused model are nobody's
            log_batch(batch.scores, self.client.served_by, columns)
            return batch

        return self._last.answer(function, triples, ask)

    def _asked(self, triples: Sequence[Triple | Score]) -> Batch:
        asked = [triple for triple in triples if isinstance(triple, Triple)]
        answers = iter(self.client.score_many(asked, unread_turns="leave_out", **self._how))
        scores = [next(answers) if isinstance(triple, Triple) else triple for triple in triples]
        if self._strict:
            for score in scores:
                if score.error:
                    raise NotScored(score.error, score.message or "")
        check_reached(self.client, scores)
        return Batch(triples, scores)


class Function:
    """A reward function, which TRL's trainers call and log by its name."""

    def __init__(
        self, batches: Batches, dimension: str | None, shaping: Shaping | None, weights: Mapping[str, float] | None
    ) -> None:
        self.__name__ = dimension or NAME
        self.batches = batches
        self._dimension = dimension
        self._shaping = shaping or Shaping()
        self._weights = weights

    def rewards(self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]) -> Rewards:
        batch = self.batches.get(self.__name__, prompts, completions, columns)
        groups = [(t.image, t.question, t.history) if isinstance(t, Triple) else None for t in batch.triples]
        lengths = [len(t.response) if isinstance(t, Triple) else 0 for t in batch.triples]
        if self._dimension is None:
            log_dimensions(batch.scores, columns)
            rewards = self._shaping(batch.scores, groups, lengths, self._weights)
        else:
            rewards = self._shaping(
                [_one_dimension(score, self._dimension) for score in batch.scores],
                groups,
                lengths,
                {self._dimension: 1.0},
            )
        correlation = length_correlation(rewards, lengths, groups)
        if correlation is not None and (log_metric := columns.get("log_metric")):
            log_metric("/".join((NAME, "length_correlation", *filter(None, [self._dimension]))), correlation)
        return rewards


class Reward(Function):
    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        return self.rewards(prompts, completions, columns)


class AsyncReward(Function):
    async def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        return await asyncio.to_thread(self.rewards, prompts, completions, columns)


def _one_dimension(score: Score, dimension: str) -> Score:
    """Returns the score as if this dimension were the whole reward."""
    if not score.logits:
        return score
    doubt = {dimension: score.uncertainty[dimension]} if score.uncertainty else None
    logit = score.logits[dimension]
    return Score(reward=logit, logits={dimension: logit}, uncertainty=doubt)
