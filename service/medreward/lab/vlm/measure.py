"""What a model is worth on pairs that were held back: by dimension, by organ, blanked, and under mini's ruses."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from medreward.lab.training import figures
from medreward.lab.training.calibrate import FEWEST, across_halves
from medreward.lab.training.corpus import DevPair
from medreward.lab.training.dev import Dev
from medreward.lab.training.evaluate import won
from medreward.lab.training.measure import (
    blanked,
    forms_part,
    length_part,
    meaning_part,
    rounded,
    ruses_part,
    seen_and_blank,
)
from medreward.lab.training.served import Ask, Picture, Row
from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.pairs_right import Numbers, ahead
from medreward.types import DIMENSIONS

TURNED: Final = 60  # pairs whose answers change places
Shown = Callable[[Picture], Picture | None]


def logits_of(ask: Ask, examples: Sequence[Example], shown: Shown = lambda picture: picture) -> Numbers:
    """Returns the mean logits of all answers, one example after the other: [answers, dimensions]."""
    rows = [
        Row(shown(example.picture) if example.picture else None, example.question, answer)
        for example in examples
        for answer in example.answers
    ]
    logits: Numbers = ask(rows).astype(np.float64).mean(1)
    return logits


def measure_held(ask: Ask, held: Sequence[Example], weights: Mapping[str, float], probed: int) -> dict[str, Any]:
    """Returns the figures of a card. `held` are pairs, of which at least one must have an image; the answers of
    `probed` of them are asked for otherwise said too.
    """
    pictured = [example for example in held if example.picture]
    seen = ahead(logits_of(ask, held), held)
    with_image = seen[[place for place, example in enumerate(held) if example.picture]]
    grey = ahead(logits_of(ask, pictured, blanked), pictured)
    none = ahead(logits_of(ask, pictured, lambda _: None), pictured)
    found = {
        "data": {"pairs": len(held), "images": len({example.subject for example in pictured})},
        "dimensions": _by_dimension(pictured, with_image, grey, none),
        "organs": _by_organ(pictured, with_image, grey, none),
        "calibration": _calibration(held, seen),
        "order": _order(ask, held),
        **_probed(ask, pictured[:probed], weights),
    }
    short: dict[str, Any] = rounded(found)
    return short


def _by_dimension(pairs: Sequence[Example], seen: Numbers, grey: Numbers, none: Numbers) -> dict[str, Any]:
    found = {}
    for place, name in enumerate(DIMENSIONS):
        told = np.flatnonzero(~np.isnan(seen[:, place])).tolist()
        if told:
            found[name] = _told([pairs[row] for row in told], *(each[told, place] for each in (seen, grey, none)))
    return found


def _by_organ(pairs: Sequence[Example], seen: Numbers, grey: Numbers, none: Numbers) -> dict[str, Any]:
    """Returns the same over all dimensions at once; a pair counts once for each that it tells of."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        places[pair.organ or "not stated"].append(place)
    found = {}
    for organ, chosen in sorted(places.items()):
        rows, columns = np.nonzero(~np.isnan(seen[chosen]))
        mine = [each[chosen][rows, columns] for each in (seen, grey, none)]
        if len(rows):
            found[organ] = _told([pairs[chosen[row]] for row in rows], *mine)
    return found


def _told(pairs: Sequence[Example], seen: Numbers, grey: Numbers, none: Numbers) -> dict[str, Any]:
    right = [won(each) for each in (seen, grey, none)]
    with_gain = seen_and_blank(right[0], right[1], [pair.subject for pair in pairs])
    return {**with_gain, "no_image": figures.share(right[2])}


def _calibration(pairs: Sequence[Example], seen: Numbers) -> dict[str, Any]:
    found = {}
    for place, name in enumerate(DIMENSIONS):
        told = np.flatnonzero(~np.isnan(seen[:, place])).tolist()
        if len(told) >= FEWEST:
            mine = seen[told, place]
            halves = across_halves(mine, [pairs[row].subject for row in told])
            found[name] = {**figures.reliability(mine), "error_across_halves": figures.reliability(halves)["error"]}
    return found


def _order(ask: Ask, pairs: Sequence[Example]) -> dict[str, Any]:
    """Asks for each pair alone, in both orders: no answer may gain by standing first."""
    some = pairs[:TURNED]
    moved = 0.0
    for pair in some:
        rows = [Row(pair.picture, pair.question, answer) for answer in pair.answers]
        moved = max(moved, float(np.abs(ask(rows) - ask(rows[::-1])[::-1]).max()))
    return {"moved": moved, "n": len(some)}


def _probed(ask: Ask, pairs: Sequence[Example], weights: Mapping[str, float]) -> dict[str, Any]:
    """Asks mini's questions about answers that are said otherwise, where a pair is decided by accuracy or overall."""
    probed = [dev for pair in pairs if (dev := _as_dev(pair))]
    if not probed:
        return {}
    by = np.array([weights.get(name, 0.0) for name in DIMENSIONS])
    found: dict[str, Any] = {}
    for part in (each(probed, by) for each in (length_part, meaning_part, ruses_part, forms_part)):
        found |= part.tell(ask(part.rows))
    return found


def _as_dev(pair: Example) -> Dev | None:
    """Returns the pair with the better answer as the good one, or None where neither dimension tells of one."""
    wins = dict(zip(DIMENSIONS, pair.wins, strict=True))
    decided = [name for name in ("accuracy", "overall") if wins[name] in (0.0, 1.0)]
    if not decided or pair.picture is None:
        return None
    good, bad = pair.answers if wins[decided[0]] == 1.0 else pair.answers[::-1]
    told = DevPair(pair.organ, pair.picture.name, pair.question, good, bad, "accuracy", (decided[0],))
    return Dev(told, pair.picture, " ".join(good.split()).rstrip("."), "open", pair.organ)
