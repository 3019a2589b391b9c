"""Watches whether screened answers are still like those from before: scores, flags and verdicts, one by one."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final

from medreward.screening.evidence import EventWatch, ScoreWatch, Watch
from medreward.screening.samples import LEAST, Sample
from medreward.types import DECIDED, DIMENSIONS, WATCHED, Base64Image, Flag, InlineImage, Item, Scored

if TYPE_CHECKING:
    from medreward.screening.screening import Screened

log = logging.getLogger(__name__)

VERDICTS: Final = tuple(f"verdict_{verdict}" for verdict in DECIDED)
#: An image that was seen among this many last ones counts no second time.
IMAGES: Final = 10_000
EDGE: Final = 2048  # bytes in the middle and at the end of an image that tell it from others


class Drift:
    """A watch on each of WATCHED. In at most the share `false_alarms` of runs any of them raises one without cause.

    `mix` samples wait and are tested in an order that is drawn, so that a rhythm shorter than that is no change.
    """

    def __init__(
        self, window: int, false_alarms: float, reference: Sequence[Sample], random: Random, mix: int = 0
    ) -> None:
        self._window = window
        self._limit = len(WATCHED) / false_alarms
        self._reference = reference
        self._random = random
        self._mix = mix
        self._waiting: list[Sample] = []
        self.watches: dict[str, Watch] = {}
        self._policies: dict[str, str] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets all that was seen, alarms among it. Begins anew with the reference, else with a first window."""
        self._waiting.clear()
        self._policies = dict(sample.policy for sample in self._reference if sample.verdict)
        self._begin(WATCHED, self._reference)

    def reset_for_another_model(self) -> None:
        """Forgets the reference too, which was another model's, and begins anew with a first window."""
        self._reference = ()
        self.reset()

    def see(self, sample: Sample) -> list[str]:
        """Takes the next sample; returns the names of the watches that raise an alarm now.

        A version of a policy that is new decides otherwise on purpose, so that verdicts get a first window then.
        """
        name, digest = sample.policy
        if sample.verdict and self._policies.setdefault(name, digest) != digest:
            self._policies[name] = digest
            self._begin(VERDICTS, ())
        if len(self._waiting) < self._mix:
            self._waiting.append(sample)
            return []
        if self._mix:
            place = self._random.randrange(self._mix)
            sample, self._waiting[place] = self._waiting[place], sample
        is_current = self._policies.get(sample.policy[0]) == sample.policy[1]
        values = _values(sample if is_current else replace(sample, verdict=""))
        return [name for name, value in values if self.watches[name].see(value)]

    def statistic(self, name: str) -> float:
        """Returns how strong the evidence of a watch is: 0 none, from 1 on an alarm."""
        return self.watches[name].statistic

    def has_alarm(self, name: str) -> bool:
        """Returns whether a watch has raised an alarm since the last reset."""
        return self.watches[name].alarm_at is not None

    def state(self) -> dict[str, dict[str, object]]:
        """Returns what `GET /admin/state` shows of each watch."""
        return {
            name: {
                "statistic": round(watch.statistic, 3),
                "alarm": watch.alarm_at is not None,
                "change": watch.change if watch.alarm_at is not None else None,
                "reference": watch.learnt,
                "missing": watch.window - watch.learnt,
                "tested": watch.tested,
            }
            for name, watch in self.watches.items()
        }

    def _begin(self, names: Sequence[str], reference: Sequence[Sample]) -> None:
        known: dict[str, list[float]] = {name: [] for name in names}
        for sample in reference:
            for name, value in _values(sample):
                if name in known:
                    known[name].append(value)
        for name, values in known.items():
            window = len(values) if len(values) >= LEAST else self._window
            is_score = name in DIMENSIONS
            self.watches[name] = (
                ScoreWatch(window, self._limit, self._random) if is_score else EventWatch(window, self._limit)
            )
            for value in values:
                self.watches[name].see(value)


class DriftAccount:
    """Shows a drift the decisions of a server: of each image one answer, because answers about one image are alike."""

    def __init__(self, drift: Drift) -> None:
        self.drift = drift
        self._images: OrderedDict[int, None] = OrderedDict()

    async def note(self, screened: "Screened") -> None:
        """Takes note of a decision. Whatever goes wrong here is logged and does not reach the request."""
        try:
            for sample in self._samples(screened):
                for name in self.drift.see(sample):
                    watch = self.drift.watches[name]
                    about = {"watched": name, "change": watch.change, "tested": watch.tested, "learnt": watch.learnt}
                    log.warning("drift: answers are no longer like those from before", extra=about)
        except Exception:
            log.exception("drift failed on a decision", extra={"decision": screened.id})

    def _samples(self, screened: "Screened") -> Iterator[Sample]:
        """Yields a sample of each item whose image is new. Chance takes one of its responses: a place among them may
        have a meaning, such as the longest first."""
        asked = screened.request.asked.items
        policy = (screened.policy.policy.name, screened.policy.digest)
        draw, place = int(screened.id[:8], 16), 0
        for item in asked:
            one = place + draw % len(item.responses)
            result, decision = screened.response.results[one], screened.decisions[one]
            if isinstance(result, Scored) and self._is_new(item, item.responses[one - place]):
                yield Sample(result.scores, result.flags, decision.verdict, policy)
            place += len(item.responses)

    def _is_new(self, item: Item, response: str) -> bool:
        """Returns whether nothing about this image was seen lately; without an image, not this question and response.
        What is kept is a hash with a secret of the process."""
        group = hash(_about(item) or (item.question, response))
        is_new = group not in self._images
        self._images[group] = None
        self._images.move_to_end(group)
        if len(self._images) > IMAGES:
            self._images.popitem(last=False)
        return is_new


def _about(item: Item) -> object:
    """Returns what tells an image from others, without reading all of a large one; None where there is no image."""
    match item.images[:1]:
        case (InlineImage(data),) | (Base64Image(data),):
            half = len(data) // 2
            return len(data), data[half : half + EDGE], data[-EDGE:]
        case (source,):
            return source
        case _:
            return None


def _values(sample: Sample) -> Iterator[tuple[str, float]]:
    """Yields the name of each watch that the sample has a number for, and that number."""
    for dimension, score in zip(DIMENSIONS, sample.scores, strict=True):
        if score is not None:
            yield dimension, score
    for flag in Flag:
        yield f"flag_{flag}", flag in sample.flags
    if sample.verdict:
        for name in VERDICTS:
            yield name, name == f"verdict_{sample.verdict}"
