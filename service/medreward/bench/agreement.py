"""How far annotators agree, each with the others, and a model with their majority and with each of them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np

from medreward.bench.annotators import Annotations
from medreward.bench.comparing import names_of
from medreward.bench.figures import bounds, rounded
from medreward.bench.finished import FinishedRun
from medreward.bench.sheet import SIDES
from medreward.bench.statistics import Floats, Ints
from medreward.bench.statistics.accuracy import credits_of
from medreward.bench.statistics.agreement import MISSING, cohen, fleiss, interval, krippendorff, majority, observed
from medreward.errors import ConfigurationError
from medreward.intervals import wilson

#: A category of its own beside B, tie and A, so that a model's missing answer agrees with nothing.
NO_ANSWER: Final = 3


def agreement(annotations: Annotations, runs: Sequence[FinishedRun] = ()) -> dict[str, Any]:
    """Returns what JSON can hold; what is not defined is None.

    People and models are held against the same majorities on the same cases: with runs, those that every run has.
    Raises ConfigurationError where a run has none of the annotated cases.
    """
    names = names_of(runs)
    places = [places_in(run, annotations) for run in runs]
    shared = [number for number in range(len(annotations.cases)) if all(of[number] is not None for of in places)]
    if not shared:
        paths = " or ".join(str(run.path) for run in runs)
        raise ConfigurationError(f"{paths} holds none of the annotated cases; name a run on the annotated data")
    rated = [dimension for dimension, sides in annotations.sides.items() if not np.isnan(sides).all()]
    choices = {
        dimension: {
            name: np.array([SIDES[run.predictions[of[case] or 0].choices[dimension]] for case in shared])
            for name, run, of in zip(names, runs, places, strict=True)
            if dimension not in run.missing
        }
        for dimension in rated
    }
    sides = {dimension: annotations.sides[dimension][shared] for dimension in rated}
    people = annotations.annotators
    return {
        "annotators": [*people],
        "cases": len(annotations.cases),
        "dimensions": {
            dimension: among_people(people, annotations.sides[dimension])
            | {"with_the_others": with_the_others(people, sides[dimension], choices[dimension])}
            for dimension in rated
        },
        "runs": [
            {
                "run": name,
                "cases": len(shared),
                "dimensions": {
                    dimension: with_everybody(people, sides[dimension], choices[dimension][name])
                    for dimension in rated
                    if name in choices[dimension]
                },
            }
            for name in names
        ],
    }


def places_in(run: FinishedRun, annotations: Annotations) -> list[int | None]:
    """Returns the place of each annotated case among the run's, None where the run does not have it.

    Where the file does not say which organ, a case is known by its id alone; raises ConfigurationError if that id is in
    several organs of the run.
    """
    by_id: dict[str, list[int]] = {}
    for place, case in enumerate(run.cases):
        by_id.setdefault(str(case.question_id), []).append(place)
    places: list[int | None] = []
    for organ, id_ in annotations.cases:
        candidates = [place for place in by_id.get(id_, ()) if organ in (None, run.cases[place].organ)]
        if len(candidates) > 1:
            raise ConfigurationError(f"{id_} is in several organs of {run.path}; add `organ` to the annotations")
        places.append(candidates[0] if candidates else None)
    return places


def among_people(people: Sequence[str], sides: Floats) -> dict[str, Any]:
    """Returns how far people agree on one dimension, all together and each pair of them."""
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
            {
                "first": people[one],
                "second": people[other],
                "n": int((ratings[:, [one, other]] != MISSING).all(axis=1).sum()),
                **_kappa(ratings[:, one], ratings[:, other]),
            }
            for one, other in combinations(range(len(people)), 2)
        ],
    }


def with_the_others(people: Sequence[str], sides: Floats, choices: Mapping[str, Floats]) -> dict[str, Any]:
    """Returns for each person how often they agree with the majority of the others, and how often each model does.

    All are counted on the cases that the person rated and on which the others have a majority.
    """
    rows = {}
    for number, person in enumerate(people):
        rated = ~np.isnan(sides[:, number])
        reference = majority(np.delete(sides[rated], number, axis=1))
        rows[person] = with_reference(sides[rated, number], reference) | {
            "runs": {name: with_reference(chosen[rated], reference) for name, chosen in choices.items()}
        }
    return rows


def with_everybody(people: Sequence[str], sides: Floats, chosen: Floats) -> dict[str, Any]:
    """Returns how often a model agrees with the majority of all, and with each person."""
    persons = {person: with_reference(chosen, sides[:, number]) for number, person in enumerate(people)}
    return {"majority": with_reference(chosen, majority(sides)), "annotators": persons}


def with_reference(choices: Floats, reference: Floats) -> dict[str, Any]:
    """Returns agreement and kappa over the same cases: those on which the reference is A or B.

    In the agreement a tie counts half and a missing answer nothing. In kappa both are categories of their own.
    """
    decided = np.abs(reference) == 1
    choices, reference = choices[decided], reference[decided]
    credit = credits_of(reference, choices)
    n = len(credit)
    return {
        "n": n,
        "agreement": rounded(credit.mean()) if n else None,
        "ci95": bounds(wilson(float(credit.sum()), n)) if n else None,
        "unanswered": int(np.isnan(choices).sum()),
        **_kappa(np.where(np.isnan(choices), NO_ANSWER, _categories(choices)), _categories(reference)),
    }


def _kappa(one: Ints, other: Ints) -> dict[str, Any]:
    """Returns Cohen's kappa on what both chose."""
    value, interval = cohen(one, other) or (None, None)
    return {"kappa": rounded(value), "kappa_ci95": bounds(interval)}


def _categories(sides: Floats) -> Ints:
    """Returns the number of each side's category: 0 for B, 1 for a tie, 2 for A."""
    return np.where(np.isnan(sides), MISSING, sides + 1).astype(np.int64)
