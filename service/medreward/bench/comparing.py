"""Any number of runs on one benchmark: what each is worth, which differ, and what this many cases could have shown."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from itertools import combinations
from typing import Any, Final

import numpy as np

from medreward.bench.figures import bounds, macro, micro, rounded, shortcut_accuracies, shortcuts
from medreward.bench.finished import FinishedRun
from medreward.bench.sheet import Column
from medreward.bench.statistics.accuracy import bootstrap, macro_bootstrap
from medreward.bench.statistics.calibration import calibration, won
from medreward.bench.statistics.many import cochran_q, friedman, letters, ranks, repeated_measures_anova
from medreward.bench.statistics.paired import adjusted, difference, mcnemar, odds_ratio, smallest_detectable
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

ALPHA: Final = 0.05


def compare(runs: Sequence[FinishedRun], alpha: float = ALPHA) -> dict[str, Any]:
    """Returns the comparison as JSON can hold it; what is not defined is None.

    Corrections are over the pairs of runs on one dimension. Raises ConfigurationError if the runs are on other cases.
    """
    refuse_other_cases(runs)
    names = names_of(runs)
    first = runs[0]
    dimensions = [dimension for dimension in DIMENSIONS if all(len(run.column(dimension)) for run in runs)]
    if not dimensions:
        raise ConfigurationError(
            "the models of these runs have no labelled dimension in common, so there is nothing to compare"
        )
    columns = {dimension: [run.column(dimension) for run in runs] for dimension in dimensions}
    pairs = {dimension: compare_pairs(dimension, names, columns[dimension]) for dimension in dimensions}
    places = {dimension: rank(names, columns[dimension], pairs[dimension], alpha) for dimension in dimensions}
    return {
        "data_digest": first.digest,
        "evidence": first.evidence,
        "cases": len(first.cases),
        "different_images": len({case.image for case in first.cases}),
        "alpha": alpha,
        "runs": [
            {
                "run": names[number],
                "path": str(run.path),
                "model": run.model.get("name"),
                "version": run.model.get("version"),
                "fingerprint": run.model.get("fingerprint"),
                "images": run.images,
                "order": run.summary.get("judge", {}).get("order"),
                "missing": [dimension for dimension in DIMENSIONS if dimension in run.missing],
                "dimensions": {d: places[d][number] | run_figures(columns[d][number]) for d in dimensions},
            }
            for number, run in enumerate(runs)
        ],
        "shortcuts": {dimension: shortcut_accuracies(columns[dimension][0]) for dimension in dimensions},
        "pairs": [row for dimension in dimensions for row in pairs[dimension]],
        "all_runs": {dimension: tests_of_all(columns[dimension]) for dimension in dimensions},
    }


def refuse_other_cases(runs: Sequence[FinishedRun]) -> None:
    """Raises ConfigurationError unless all runs are on the same cases of the same data."""
    for run in runs[1:]:
        if run.digest != runs[0].digest:
            raise ConfigurationError(
                f"{run.path} is a run on other data ({run.digest}) than {runs[0].path} ({runs[0].digest})"
            )
        if list(run.cases) != list(runs[0].cases):
            raise ConfigurationError(
                f"{run.path} has other cases of the data ({len(run.cases)}) than {runs[0].path} "
                f"({len(runs[0].cases)}); was one run with --limit?"
            )


def names_of(runs: Sequence[FinishedRun]) -> list[str]:
    """Returns the names of the runs' folders, or their paths where names are alike."""
    names = [run.name for run in runs]
    return names if len({*names}) == len(names) else [str(run.path) for run in runs]


def run_figures(column: Column) -> dict[str, Any]:
    """Returns the figures of one run on one dimension."""
    credit, images = column.credits, column.images
    over_shortcuts = {name: difference(credit, shortcut, images) for name, shortcut in shortcuts(column).items()}
    parts: dict[str, dict[str, Any]] = {}
    for part, names in column.parts.items():
        parts[part] = {str(name): micro(column.inside(names == name)).json() for name in np.unique(names) if name}
    calibrated = calibration(column.labels, column.margins)
    if calibrated:
        row = {k: rounded(value) if isinstance(value, float) else value for k, value in asdict(calibrated).items()}
        row["median_win_margin"] = rounded(np.nanmedian(won(column.labels, column.margins)))
    return {
        **micro(column).json(),
        "bootstrap95": bounds(bootstrap(credit, images)),
        "macro": macro(column).json() | {"bootstrap95": bounds(macro_bootstrap(credit, column.organs, images))},
        **parts,
        "calibration": row if calibrated else None,
        "over_shortcuts": {
            name: {"difference": rounded(lead.value), "ci95": bounds((lead.low, lead.high))}
            for name, lead in over_shortcuts.items()
        },
    }


def compare_pairs(dimension: str, names: Sequence[str], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Returns a row for each pair of runs on the dimension, with p values corrected over these pairs."""
    pairs = list(combinations(range(len(columns)), 2))
    tests = [mcnemar(columns[one].credits, columns[other].credits) for one, other in pairs]
    p = [test.p for test in tests]
    rows = []
    for (one, other), test, holm, bonferroni in zip(
        pairs, tests, adjusted(p, "holm"), adjusted(p, "bonferroni"), strict=True
    ):
        both = columns[one].credits, columns[other].credits, columns[one].images
        seen = difference(*both)
        ratio, ratio_bounds = odds_ratio(test.better, test.worse)
        rows.append(
            {
                "dimension": dimension,
                "n": test.n,
                "better": test.better,
                "worse": test.worse,
                "difference": rounded(seen.value),
                "ci95": bounds((seen.low, seen.high)),
                "odds_ratio": rounded(ratio),
                "odds_ratio_ci95": bounds(ratio_bounds),
                "p": test.p,
                "design_effect": rounded(seen.design_effect),
                "smallest_difference": rounded(smallest_detectable(*both)),
                "first": names[one],
                "second": names[other],
                "holm": holm,
                "bonferroni": bonferroni,
            }
        )
    return rows


def rank(
    names: Sequence[str], columns: Sequence[Column], pairs: Sequence[Mapping[str, Any]], alpha: float
) -> list[dict[str, Any]]:
    """Returns each run's rank, and its group: runs that share a letter do not differ."""
    accuracy = [float(column.credits.mean()) for column in columns]
    differ = np.zeros((len(names), len(names)), dtype=np.bool_)
    for row in pairs:
        one, other = names.index(row["first"]), names.index(row["second"])
        differ[one, other] = differ[other, one] = row["holm"] < alpha
    groups = zip(ranks(accuracy, differ), letters(accuracy, differ), strict=True)
    return [{"rank": rank, "group": group} for rank, group in groups]


def tests_of_all(columns: Sequence[Column]) -> dict[str, Any]:
    """Returns the tests of whether any of the runs differ at all; None where a test is not defined."""
    credit = np.column_stack([column.credits for column in columns])
    tests = {
        "cochran_q": cochran_q(credit == 1),
        "friedman": friedman(credit),
        "anova": repeated_measures_anova(credit),
    }
    return {
        name: asdict(test) | {"statistic": rounded(test.statistic)} if test else None for name, test in tests.items()
    }


def as_csv(compared: Mapping[str, Any]) -> str:
    """Returns a line for each run, dimension and part: all cases, the mean of organs, an organ, a department, …"""
    file = StringIO()
    names = ("run", "model", "images", "dimension", "part", "name")
    numbers = ("accuracy", "low", "high", "n", "correct", "ties", "unanswered", "rank", "group")
    writer = csv.DictWriter(file, [*names, *numbers], lineterminator="\n")
    writer.writeheader()
    for run in compared["runs"]:
        for dimension, row in run["dimensions"].items():
            about = {name: run[name] for name in ("run", "model", "images")} | {"dimension": dimension}
            for part, name, figure in _parts_of(row):
                low, high = figure["ci95"] or (None, None)
                counts = {count: figure[count] for count in ("n", "correct", "ties", "unanswered")}
                place = {"rank": row["rank"], "group": row["group"]} if part == "all" else {}
                cells = {"part": part, "name": name, "accuracy": figure["accuracy"], "low": low, "high": high}
                writer.writerow(about | cells | counts | place)
    return file.getvalue()


def _parts_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Gives each figure of a run's dimension, with its part and the name within that part."""
    yield "all", "", row
    yield "macro", "", row["macro"]
    for part in ("organ", "department", "question_type"):
        for name, figure in row[part].items():
            yield part, name, figure
