"""Many runs as a page: models, dimensions and organs, and who cannot be told from whom."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from medreward.bench.report import charts
from medreward.bench.report.charts import Mark, Series
from medreward.bench.report.facts import Cell, HeatRow, Share
from medreward.bench.report.labels import labels_of
from medreward.bench.report.page import rendered

CHART_NAME: Final = 26
TESTS: Final = {"cochran_q": "Cochran's Q", "friedman": "Friedman", "anova": "repeated measures ANOVA"}


@dataclass(frozen=True, slots=True)
class Rival:
    """A run against the first of the board."""

    name: str
    difference: float
    low: float
    high: float
    p: float
    smallest: float | None


def leaderboard(compared: Mapping[str, Any]) -> str:
    """Of what `comparing.compare` found, ordered by `overall` where it is labelled."""
    dimensions = list(compared["shortcuts"])
    by = dimensions[-1]
    runs = sorted(compared["runs"], key=lambda run: -run["dimensions"][by]["accuracy"])
    names = [run["run"] for run in runs]
    return rendered(
        "leaderboard.html",
        labels=labels_of(compared["evidence"]),
        compared=compared,
        runs=runs,
        dimensions=dimensions,
        by=by,
        chart=_chart(runs, by),
        rivals=list(_rivals(compared["pairs"], names, by)),
        heat=[(dimension, *_heat(runs, dimension)) for dimension in reversed(dimensions)],
        tests=TESTS,
    )


def _chart(runs: Sequence[Mapping[str, Any]], by: str) -> Any:
    figures = [run["dimensions"][by] for run in runs]
    marks = [Mark(100 * one["accuracy"], 100 * one["ci95"][0], 100 * one["ci95"][1]) for one in figures]
    names = [name if len(name) <= CHART_NAME else f"{name[: CHART_NAME - 1]}…" for name in (r["run"] for r in runs)]
    return charts.accuracies("board", names, [Series("", marks)], f"Accuracy on {by}; the table has the figures")


def _rivals(pairs: Iterable[Mapping[str, Any]], names: Sequence[str], by: str) -> Iterator[Rival]:
    found = {(row["first"], row["second"]): row for row in pairs if row["dimension"] == by}
    for name in names[1:]:
        turned = (name, names[0]) not in found
        row, sign = (found[names[0], name], -1) if turned else (found[name, names[0]], 1)
        low, high = sorted(sign * bound for bound in row["ci95"])
        yield Rival(name, sign * row["difference"], low, high, row["holm"], row["smallest_difference"])


def _heat(runs: Sequence[Mapping[str, Any]], dimension: str) -> tuple[list[str], list[HeatRow]]:
    organs = list(runs[0]["dimensions"][dimension]["organ"])
    rows = [(run["run"], run["dimensions"][dimension]["organ"]) for run in runs]
    return organs, [HeatRow(name, [_cell(cells[organ]) for organ in organs]) for name, cells in rows]


def _cell(figure: Mapping[str, Any]) -> Cell:
    return Cell(figure["n"], Share(figure["accuracy"], *figure["ci95"]) if figure["n"] else None)
