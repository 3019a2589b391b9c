"""One run as a page: the verdict first, then what it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from medreward.bench.answering import OK
from medreward.bench.blinding import Images
from medreward.bench.comparing import evidence
from medreward.bench.finished import FinishedRun
from medreward.bench.report import charts
from medreward.bench.report.charts import Mark, Series
from medreward.bench.report.decision import Decision, Gate, by_gate, without_gate
from medreward.bench.report.examples import Example, Pair, Texts, example, lost, most_surprising, worst
from medreward.bench.report.facts import Facts, Row, Share, facts
from medreward.bench.report.labels import Labels, labels_of
from medreward.bench.report.page import NONE, points, rendered, share
from medreward.bench.report.provenance import provenance
from medreward.types import DIMENSIONS

#: What the model saw where it was not each case's own image.
SHOWN: Final[Mapping[str, str]] = {
    Images.BLANK: "It was shown a plain grey image of the same size in place of each image.",
    Images.NONE: "It was shown no image.",
    Images.SHUFFLED: "It was shown another case's image in place of each image.",
}
#: Of the curves: what everything else is about, and what all of medicine is about.
CURVES: Final = ("overall", "accuracy")


@dataclass(frozen=True, slots=True)
class Shown:
    """A run in words."""

    title: str
    data: str
    date: str
    warnings: Sequence[str]

    @classmethod
    def of(cls, run: FinishedRun) -> "Shown":
        model, limit = run.about["model"], run.about.get("settings", {}).get("limit")
        return cls(
            title=" ".join(str(part) for part in (model["name"], model.get("version")) if part),
            data=f"{run.about.get('data')} ({len(run.cases)} cases)",
            date=run.about.get("last_part", {}).get("finished", "unknown date")[:10],
            warnings=[
                *(["This is the fake model: its scores mean nothing."] if model["name"] == "fake" else []),
                *([SHOWN[run.images]] if run.images in SHOWN else []),
                *([f"Only the first {limit} cases were asked."] if limit else []),
                *([f"The model has no {', '.join(d for d in DIMENSIONS if d in run.missing)}."] if run.missing else []),
            ],
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    caption: str
    svg: Markup
    dimension: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class CaseList:
    title: str
    note: str
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run, or a run against another, has to say."""

    run: FinishedRun
    baseline: FinishedRun | None
    gate: Gate | None
    labels: Labels
    facts: Facts
    decision: Decision

    @classmethod
    def of(cls, run: FinishedRun, baseline: FinishedRun | None = None, gate: Gate | None = None) -> "Report":
        found = facts(run, baseline)
        overall = found.dimensions[-1]
        decision = by_gate(gate, overall) if gate else without_gate(overall)
        return cls(run, baseline, gate, labels_of(evidence(run)), found, decision)

    def page(self, texts: Texts, count: int) -> str:
        """`texts` are the cases of the data, none where it is not at hand; `count` is of each list of cases."""
        run, baseline = self.run, self.baseline
        return rendered(
            "report.html",
            labels=self.labels,
            candidate=Shown.of(run),
            baseline=Shown.of(baseline) if baseline else None,
            verdict=self.decision,
            figures=_figures(run, self.facts),
            facts=self.facts,
            macro=run.summary["strict"]["macro"],
            images_shared=len({case.image for case in run.cases}) < len(run.cases),
            dimension_names=DIMENSIONS,
            dimension_charts=_dimension_charts(baseline, self.facts.dimensions),
            reliability_charts=_reliability_charts(self.facts),
            judge=run.summary.get("judge"),
            lists=_lists(run, baseline, texts, count) if count else [],
            provenance=provenance(run, baseline, self.gate),
        )


def _figures(run: FinishedRun, found: Facts) -> list[Figure]:
    overall, accuracy = found.dimensions[-1], found.dimensions[0]
    figures = [Figure(row.name, _percent(row.share), _interval(row.share)) for row in (overall, accuracy)]
    if against := overall.against:
        ends = f"{points(against.difference.low)} to {points(against.difference.high)}"
        figures.append(Figure("overall against baseline", points(against.difference.value), f"points, {ends}"))
    if one := found.calibrations.get("overall"):
        limit = f"points; 95% limit for a perfectly calibrated model: {share(one.by_luck)}"
        figures.append(Figure("calibration error, overall", share(one.ece), limit))
    codes = {code: count for code, count in run.summary["statuses"].items() if code != OK}
    told = "".join(f", {count} {code}" for code, count in codes.items())
    return [*figures, Figure("without an answer", str(sum(codes.values())), f"of {len(run.cases)} cases{told}")]


def _percent(figure: Share | None) -> str:
    return f"{share(figure.value)}%" if figure else NONE


def _interval(figure: Share | None) -> str:
    return f"95%: {share(figure.low)} to {share(figure.high)}" if figure else ""


def _dimension_charts(baseline: FinishedRun | None, rows: Sequence[Row]) -> list[Drawn]:
    series = [Series("this run", [_mark(row.share) for row in rows])]
    if baseline:
        series.append(Series("baseline", [_mark(row.against.share) if row.against else None for row in rows]))
    caption = "Accuracy on the six dimensions"
    shortcuts = [100 * row.shortcut.accuracy if row.shortcut else None for row in rows]
    title = f"{caption}; the table has the figures"
    drawn = [Drawn(caption, charts.accuracies("accuracy", DIMENSIONS, series, title, shortcuts))]
    if baseline:
        caption = "Difference from the baseline"
        marks = Series(caption, [_mark(row.against.difference) if row.against else None for row in rows])
        title = f"{caption}; the table has the figures"
        drawn.append(Drawn(caption, charts.differences("difference", DIMENSIONS, marks, title)))
    return drawn


def _mark(figure: Any) -> Mark | None:
    return Mark(100 * figure.value, 100 * figure.low, 100 * figure.high) if figure else None


def _reliability_charts(found: Facts) -> list[Drawn]:
    drawn = []
    for name in CURVES:
        if one := found.calibrations.get(name):
            title = f"Reliability curve on {name}; the table has the figures"
            drawn.append(Drawn(f"Reliability on {name}", charts.reliability(f"curve-{name}", one.bins, title), name))
    return drawn


def _lists(run: FinishedRun, baseline: FinishedRun | None, texts: Texts, count: int) -> list[CaseList]:
    seen: set[tuple[str, str]] = set()

    def listed(title: str, note: str, pairs: Sequence[Pair]) -> CaseList:
        new = [pair for pair in pairs if pair[0].key not in seen][:count]
        seen.update(pair[0].key for pair in new)
        return CaseList(title, note, [example(pair, texts) for pair in new])

    lists = [listed("The worst cases", "Wrong on the most dimensions; of equals, those it was surest of.", worst(run))]
    note = "Wrong on any one dimension with the most confidence, those above left out. A judge tells no confidence."
    lists.append(listed("The most surprising cases", note, most_surprising(run)))
    if baseline:
        note = "Wrong on overall where the baseline is right; the surest first, those above left out."
        lists.append(listed("What the baseline knew better", note, lost(run, baseline)))
    return lists
