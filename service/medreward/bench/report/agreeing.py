"""The file of a shadow: how often the second verdict was the one that was served."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medreward.errors import ConfigurationError
from medreward.intervals import wilson
from medreward.types import Verdict

PARTS: Final = 30
SMALLEST: Final = 50


@dataclass(frozen=True, slots=True)
class Twice:
    """An answer that was decided twice, and by what."""

    time: str
    served: Verdict
    shadow: Verdict
    served_by: str
    shadow_by: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two deciders agreed on the same answers."""

    answers: Sequence[Twice]

    @property
    def outcomes(self) -> Counter[tuple[Verdict, Verdict]]:
        """How many answers have each pair of verdicts, the served one first."""
        return Counter((one.served, one.shadow) for one in self.answers)

    @property
    def agreed(self) -> int:
        return sum(one.served is one.shadow for one in self.answers)

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds of the share of agreement, 95%."""
        return wilson(self.agreed, len(self.answers))

    def course(self) -> list[tuple[int, dict[str, float]]]:
        """Returns, for each part of the file, where it ends and its shares: agreed, served more freely by the shadow
        or more strictly."""
        size = max(SMALLEST, -(-len(self.answers) // PARTS))
        parts = [self.answers[start : start + size] for start in range(0, len(self.answers), size)]
        kept = [part for part in parts if len(part) >= SMALLEST] or parts[:1]
        return [(min((n + 1) * size, len(self.answers)), _shares(part)) for n, part in enumerate(kept)]

    def json(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {
            "answers": len(self.answers),
            "agreed": self.agreed,
            "ci95": list(self.interval),
            "outcomes": {f"{served}_{shadow}": n for (served, shadow), n in self.outcomes.items()},
            "served": self.answers[0].served_by,
            "shadow": self.answers[0].shadow_by,
        }


def read_shadow(path: Path) -> list[Agreement]:
    """Returns the agreement of each pair of deciders in a shadow's file, in the order in which they came.

    Fails with a ConfigurationError where the file is none. A last line that was not written to its end is left out.
    """
    pairs: dict[tuple[str, str], list[Twice]] = {}
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            one = _twice(json.loads(line))
        except (ValueError, KeyError, TypeError):
            if number == len(lines) and not line.endswith(b"\n"):
                continue
            raise ConfigurationError(f"{path}, line {number}: this is no line of a shadow's file") from None
        pairs.setdefault((one.served_by, one.shadow_by), []).append(one)
    if not pairs:
        raise ConfigurationError(f"{path} holds no answer that was decided twice")
    return [Agreement(answers) for answers in pairs.values()]


def _twice(line: dict[str, Any]) -> Twice:
    served, shadow = line["served"], line["shadow"]
    return Twice(
        line["time"], Verdict(served["verdict"]), Verdict(shadow["verdict"]), _decider(served), _decider(shadow)
    )


def _decider(side: dict[str, Any]) -> str:
    return f"{side['name']} {side['version']} ({side['digest'][:19]}) on {side['fingerprint'][:19]}"


def _shares(answers: Sequence[Twice]) -> dict[str, float]:
    """Returns the shares of answers on which both agreed, and on which the shadow was freer or stricter: `allow` is
    freer than `review`, and that than `block`."""
    order = [Verdict.ALLOW, Verdict.REVIEW, Verdict.BLOCK, Verdict.UNSCORED]
    steps = [order.index(one.shadow) - order.index(one.served) for one in answers]
    named = {"agreed": lambda step: step == 0, "freer": lambda step: step < 0, "stricter": lambda step: step > 0}
    return {name: sum(map(holds, steps)) / len(steps) for name, holds in named.items()}
