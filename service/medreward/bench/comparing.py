"""Any number of runs on one benchmark: what each is worth, which differ, and what this many cases could have shown."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from medreward.bench.figures import bounds, macro, micro, rounded, shortcut_accuracies, shortcuts
from medreward.bench.finished import FinishedRun, Measured
from medreward.bench.statistics import Floats
from medreward.bench.statistics.accuracy import bootstrap, macro_bootstrap
from medreward.bench.statistics.calibration import calibration, won
from medreward.bench.statistics.many import cochran_q, friedman, letters, ranks, repeated_measures_anova
from medreward.bench.statistics.paired import adjusted, difference, mcnemar, odds_ratio, smallest_detectable
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

ALPHA: Final = 0.05
PARTS: Final = ("organ", "department", "question_type")


def compare(runs: Sequence[FinishedRun], alpha: float = ALPHA) -> dict[str, Any]:
    """As JSON can hold it; what is not defined is None. Corrections are over the pairs of runs on one dimension."""
    refuse_other_benchmarks(runs)
    names = labels_of(runs)
    first = runs[0]
    dimensions = [dimension for dimension in DIMENSIONS if all(len(run.measured(dimension).labels) for run in runs)]
    if not dimensions:
        raise ConfigurationError(
            "the models of these runs have no labelled dimension in common, so there is nothing to compare"
        )
    pairs = {dimension: _pairs(runs, names, dimension) for dimension in dimensions}
    places = {dimension: _places(runs, names, pairs[dimension], dimension, alpha) for dimension in dimensions}
    return {
        "data_digest": first.digest,
        "evidence": evidence(first),
        "cases": len(first.cases),
        "different_images": len({case.image for case in first.cases}),
        "alpha": alpha,
        "runs": [
            _about(run, name)
            | {"dimensions": {d: places[d][number] | _figures_of(run.measured(d)) for d in dimensions}}
            for number, (run, name) in enumerate(zip(runs, names, strict=True))
        ],
        "shortcuts": {dimension: shortcut_accuracies(first.measured(dimension)) for dimension in dimensions},
        "pairs": [row for dimension in dimensions for row in pairs[dimension]],
        "all_runs": {dimension: _all_runs(runs, dimension) for dimension in dimensions},
    }


def refuse_other_benchmarks(runs: Sequence[FinishedRun]) -> None:
    for run in runs[1:]:
        if run.digest != runs[0].digest:
            raise ConfigurationError(
                f"{run.path} is a run on other data ({run.digest}) than {runs[0].path} ({runs[0].digest})"
            )
        if run.cases != runs[0].cases:
            raise ConfigurationError(
                f"{run.path} has other cases of the data ({len(run.cases)}) than {runs[0].path} ({len(runs[0].cases)})"
            )


def labels_of(runs: Sequence[FinishedRun]) -> list[str]:
    """Folders' names, or their paths where names are alike."""
    names = [run.name for run in runs]
    return names if len({*names}) == len(names) else [str(run.path) for run in runs]


def evidence(run: FinishedRun) -> dict[str, int]:
    """How many labels are of which kind."""
    return dict(sorted(Counter(case.evidence or "not stated" for case in run.cases).items()))


def as_csv(compared: Mapping[str, Any]) -> str:
    """A line for each run, dimension and part: all cases, the mean of organs, an organ, a department, …"""
    file = StringIO()
    names = ("run", "model", "images", "dimension", "part", "name")
    numbers = ("accuracy", "low", "high", "n", "correct", "ties", "unanswered", "rank", "group")
    writer = csv.DictWriter(file, [*names, *numbers], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(compared))
    return file.getvalue()


def _csv_rows(compared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for run in compared["runs"]:
        for dimension, row in run["dimensions"].items():
            about = {"run": run["run"], "model": run["model"], "images": run["images"], "dimension": dimension}
            place = {"rank": row["rank"], "group": row["group"]}
            yield about | {"part": "all", "name": ""} | place | _flat(row)
            yield about | {"part": "macro", "name": ""} | _flat(row["macro"])
            for part in PARTS:
                for name, figure in row[part].items():
                    yield about | {"part": part, "name": name} | _flat(figure)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = row["ci95"] or (None, None)
    counts = {name: row[name] for name in ("n", "correct", "ties", "unanswered")}
    return {"accuracy": row["accuracy"], "low": low, "high": high} | counts


def _about(run: FinishedRun, name: str) -> dict[str, Any]:
    model = run.about["model"]
    return {
        "run": name,
        "path": str(run.path),
        "model": model.get("name"),
        "version": model.get("version"),
        "fingerprint": model.get("fingerprint"),
        "images": run.images,
        "order": run.summary.get("judge", {}).get("order"),
        "missing": [dimension for dimension in DIMENSIONS if dimension in run.missing],
    }


def _figures_of(measured: Measured) -> dict[str, Any]:
    credit = measured.credits
    columns = {"organ": measured.organs, "department": measured.departments, "question_type": measured.question_types}
    return {
        **micro(measured),
        "bootstrap95": bounds(bootstrap(credit, measured.images)),
        "macro": {
            **macro(measured),
            "bootstrap95": bounds(macro_bootstrap(credit, measured.organs, measured.images)),
        },
        **{part: _by_part(measured, column) for part, column in columns.items()},
        "calibration": _calibration(measured),
        "over_shortcuts": {name: _over(credit, shortcut, measured) for name, shortcut in shortcuts(measured).items()},
    }


def _over(credit: Floats, shortcut: Floats, measured: Measured) -> dict[str, Any]:
    found = difference(credit, shortcut, measured.images)
    return {"difference": rounded(found.value), "ci95": bounds((found.low, found.high))}


def _by_part(measured: Measured, names: npt.NDArray[np.str_]) -> dict[str, Any]:
    return {str(name): micro(measured.inside(names == name)) for name in np.unique(names) if name}


def _calibration(measured: Measured) -> dict[str, Any] | None:
    found = calibration(measured.labels, measured.margins)
    if found is None:
        return None
    margins = won(measured.labels, measured.margins)
    row = {name: rounded(value) if isinstance(value, float) else value for name, value in asdict(found).items()}
    return row | {"median_win_margin": rounded(np.nanmedian(margins))}


def _pairs(runs: Sequence[FinishedRun], names: Sequence[str], dimension: str) -> list[dict[str, Any]]:
    measured = [run.measured(dimension) for run in runs]
    rows = [
        _pair(measured[one], measured[other]) | {"first": names[one], "second": names[other]}
        for one, other in combinations(range(len(runs)), 2)
    ]
    p = [row["p"] for row in rows]
    corrected = zip(rows, adjusted(p, "holm"), adjusted(p, "bonferroni"), strict=True)
    return [
        {"dimension": dimension, **row, "holm": holm, "bonferroni": bonferroni} for row, holm, bonferroni in corrected
    ]


def _pair(one: Measured, other: Measured) -> dict[str, Any]:
    test = mcnemar(one.credits, other.credits)
    seen = difference(one.credits, other.credits, one.images)
    ratio, ratio_bounds = odds_ratio(test.better, test.worse)
    return {
        "n": test.n,
        "better": test.better,
        "worse": test.worse,
        "difference": rounded(seen.value),
        "ci95": bounds((seen.low, seen.high)),
        "odds_ratio": rounded(ratio),
        "odds_ratio_ci95": bounds(ratio_bounds),
        "p": test.p,
        "design_effect": rounded(seen.design_effect),
        "smallest_difference": rounded(smallest_detectable(one.credits, other.credits, one.images)),
    }


def _places(
    runs: Sequence[FinishedRun], names: Sequence[str], pairs: Sequence[Mapping[str, Any]], dimension: str, alpha: float
) -> list[dict[str, Any]]:
    accuracy = [float(run.measured(dimension).credits.mean()) for run in runs]
    differ = np.zeros((len(runs), len(runs)), dtype=np.bool_)
    for row in pairs:
        one, other = names.index(row["first"]), names.index(row["second"])
        differ[one, other] = differ[other, one] = row["holm"] < alpha
    groups = zip(ranks(accuracy, differ), letters(accuracy, differ), strict=True)
    return [{"rank": rank, "group": group} for rank, group in groups]


def _all_runs(runs: Sequence[FinishedRun], dimension: str) -> dict[str, Any]:
    credit = np.column_stack([run.measured(dimension).credits for run in runs])
    tests = {
        "cochran_q": cochran_q(credit == 1),
        "friedman": friedman(credit),
        "anova": repeated_measures_anova(credit),
    }
    return {
        name: None if found is None else asdict(found) | {"statistic": rounded(found.statistic)}
        for name, found in tests.items()
    }
