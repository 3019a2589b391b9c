"""How far annotators agree, each with the others, and a model with their majority and with each of them."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from medreward.bench.annotators import Annotations
from medreward.bench.comparing import bounds, labels_of, rounded
from medreward.bench.finished import SIDES, FinishedRun
from medreward.bench.statistics import Floats, Ints
from medreward.bench.statistics.accuracy import credits_of
from medreward.bench.statistics.agreement import MISSING, cohen, fleiss, interval, krippendorff, majority, observed
from medreward.errors import ConfigurationError
from medreward.intervals import wilson


def agreement(annotations: Annotations, runs: Sequence[FinishedRun] = ()) -> dict[str, Any]:
    """As JSON can hold it; what is not defined is None."""
    rated = [dimension for dimension, sides in annotations.sides.items() if not np.isnan(sides).all()]
    return {
        "annotators": [*annotations.annotators],
        "cases": len(annotations.cases),
        "dimensions": {dimension: _among(annotations, dimension) for dimension in rated},
        "runs": [_of_run(annotations, run, name, rated) for name, run in zip(labels_of(runs), runs, strict=True)],
    }


def _among(annotations: Annotations, dimension: str) -> dict[str, Any]:
    people, sides = annotations.annotators, annotations.sides[dimension]
    ratings = _categories(sides)
    several = ratings[(ratings != MISSING).sum(axis=1) > 1]
    decided = majority(sides)
    return {
        "cases": len(several),
        "agreement": rounded(observed(ratings)),
        "fleiss": rounded(fleiss(ratings)),
        "fleiss_cases": int((ratings != MISSING).all(axis=1).sum()),
        "krippendorff": rounded(krippendorff(ratings)),
        "krippendorff_ci95": bounds(interval(krippendorff, several) if len(several) > 1 else None),
        "majority": {name: int((decided == side).sum()) for name, side in SIDES.items() if name},
        "pairs": [
            {"first": people[one], "second": people[other], **_kappa(sides[:, one], sides[:, other])}
            for one, other in combinations(range(len(people)), 2)
        ],
        "with_the_others": {
            name: _with(sides[rated, number], majority(np.delete(sides[rated], number, axis=1)))
            for number, name in enumerate(people)
            for rated in [~np.isnan(sides[:, number])]
        },
    }


def _of_run(annotations: Annotations, run: FinishedRun, name: str, dimensions: Sequence[str]) -> dict[str, Any]:
    by_case, chosen = _places(annotations, run), run.predictions
    asked = [number for number, place in enumerate(by_case) if place is not None]
    if not asked:
        raise ConfigurationError(f"no case that was annotated is in {run.path}")
    figures = {}
    for dimension in (dimension for dimension in dimensions if dimension not in run.missing):
        choices = np.array([SIDES[chosen[place].choices[dimension]] for place in by_case if place is not None])
        sides = annotations.sides[dimension][asked]
        figures[dimension] = {
            "majority": _with(choices, majority(sides)),
            "annotators": {person: _with(choices, sides[:, n]) for n, person in enumerate(annotations.annotators)},
        }
    return {"run": name, "cases": len(asked), "dimensions": figures}


def _places(annotations: Annotations, run: FinishedRun) -> list[int | None]:
    """Of each annotated case among the run's; by its id alone where the file does not say which organ."""
    by_id: dict[str, list[int]] = {}
    for place, (_, id_) in enumerate(run.keys):
        by_id.setdefault(id_, []).append(place)
    places: list[int | None] = []
    for organ, id_ in annotations.cases:
        found = [place for place in by_id.get(id_, ()) if organ in (None, run.cases[place].organ)]
        if len(found) > 1:
            raise ConfigurationError(f"{id_} is in several organs of {run.path}: the annotations must say which organ")
        places.append(found[0] if found else None)
    return places


def _with(choices: Floats, reference: Floats) -> dict[str, Any]:
    """Where the reference is A or B: a tie agrees half, no answer not at all."""
    decided = np.abs(reference) == 1
    credit = credits_of(reference[decided], choices[decided])
    n = len(credit)
    return {
        "n": n,
        "agreement": rounded(credit.mean()) if n else None,
        "ci95": bounds(wilson(float(credit.sum()), n)) if n else None,
        "unanswered": int(np.isnan(choices[decided]).sum()),
        **{name: value for name, value in _kappa(choices, reference).items() if name != "n"},
    }


def _kappa(one: Floats, other: Floats) -> dict[str, Any]:
    """Cohen's, on what both chose."""
    found = cohen(_categories(one), _categories(other))
    kappa, kappa_bounds = found or (None, None)
    both = int((~np.isnan(one) & ~np.isnan(other)).sum())
    return {"n": both, "kappa": rounded(kappa), "kappa_ci95": bounds(kappa_bounds)}


def _categories(sides: Floats) -> Ints:
    return np.where(np.isnan(sides), MISSING, sides + 1).astype(np.int64)
