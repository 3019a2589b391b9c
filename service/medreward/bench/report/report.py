"""One run as a page: the verdict first, then what it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from medreward.bench.cases import Images
from medreward.bench.chooser import OK
from medreward.bench.figures import Figure
from medreward.bench.finished import FinishedRun
from medreward.bench.report import charts, examples
from medreward.bench.report.charts import Mark, Series
from medreward.bench.report.examples import Example, Texts, example
from medreward.bench.report.facts import Facts, Row, facts
from medreward.bench.report.headline import Decision, Gate, Labels, by_gate, labels_of, without_gate
from medreward.bench.report.page import NONE, points, render, share
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
class Title:
    """A run in words."""

    title: str
    data: str
    date: str
    warnings: Sequence[str]

    @classmethod
    def of(cls, run: FinishedRun) -> "Title":
        model, limit = run.model, run.about.get("settings", {}).get("limit")
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
class Chart:
    caption: str
    svg: Markup
    dimension: str = ""


@dataclass(frozen=True, slots=True)
class Highlight:
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
        figures = facts(run, baseline)
        overall = figures.dimensions[-1]
        decision = by_gate(gate, overall) if gate else without_gate(overall)
        return cls(run, baseline, gate, labels_of(run.evidence), figures, decision)

    def page(self, texts: Texts, count: int) -> str:
        """Returns the page as HTML.

        `texts` are the cases of the data, none where it is not at hand; `count` is of each list of cases.
        """
        run, baseline = self.run, self.baseline
        return render(
            "report.html",
            labels=self.labels,
            candidate=Title.of(run),
            baseline=Title.of(baseline) if baseline else None,
            verdict=self.decision,
            figures=_highlights(run, self.facts),
            facts=self.facts,
            macro=run.summary["strict"]["macro"],
            images_shared=len({case.image for case in run.cases}) < len(run.cases),
            dimension_names=DIMENSIONS,
            dimension_charts=_dimension_charts(baseline, self.facts.dimensions),
            reliability_charts=_reliability_charts(self.facts),
            judge=run.summary.get("judge"),
            lists=_case_lists(run, baseline, texts, count) if count else [],
            provenance=provenance(run, baseline, self.gate),
        )


def _highlights(run: FinishedRun, facts: Facts) -> list[Highlight]:
    """Returns the few figures that stand beside the verdict."""
    overall, accuracy = facts.dimensions[-1], facts.dimensions[0]
    figures = []
    for row in (overall, accuracy):
        known, figure = row.figure.accuracy is not None, row.figure
        ends = f"95%: {share(figure.low)} to {share(figure.high)}" if known else ""
        figures.append(Highlight(row.name, f"{share(figure.accuracy)}%" if known else NONE, ends))
    if against := overall.against:
        ends = f"{points(against.difference.low)} to {points(against.difference.high)}"
        figures.append(Highlight("overall against baseline", points(against.difference.value), f"points, {ends}"))
    if one := facts.calibrations.get("overall"):
        limit = f"points; 95% limit for a perfectly calibrated model: {share(one.by_luck)}"
        figures.append(Highlight("calibration error, overall", share(one.ece), limit))
    codes = {code: count for code, count in run.summary["statuses"].items() if code != OK}
    why = "".join(f", {count} {code}" for code, count in codes.items())
    return [*figures, Highlight("without an answer", str(sum(codes.values())), f"of {len(run.cases)} cases{why}")]


def _dimension_charts(baseline: FinishedRun | None, rows: Sequence[Row]) -> list[Chart]:
    """Returns the accuracies, and with a baseline the differences."""
    series = [Series("this run", [_mark_of(row.figure) for row in rows])]
    if baseline:
        series.append(Series("baseline", [_mark_of(row.against.figure) if row.against else None for row in rows]))
    caption = "Accuracy on the six dimensions"
    shortcuts = [100 * row.shortcut.accuracy if row.shortcut else None for row in rows]
    title = f"{caption}; the table has the figures"
    drawn = [Chart(caption, charts.accuracies("accuracy", DIMENSIONS, series, title, shortcuts))]
    if baseline:
        caption = "Difference from the baseline"
        leads = [row.against.difference if row.against else None for row in rows]
        marks = [Mark(100 * lead.value, 100 * lead.low, 100 * lead.high) if lead else None for lead in leads]
        title = f"{caption}; the table has the figures"
        drawn.append(Chart(caption, charts.differences("difference", DIMENSIONS, Series(caption, marks), title)))
    return drawn


def _mark_of(figure: Figure) -> Mark | None:
    if figure.accuracy is None or figure.low is None or figure.high is None:
        return None
    return Mark(100 * figure.accuracy, 100 * figure.low, 100 * figure.high)


def _reliability_charts(facts: Facts) -> list[Chart]:
    drawn = []
    for name in CURVES:
        if one := facts.calibrations.get(name):
            title = f"Reliability curve on {name}; the table has the figures"
            drawn.append(Chart(f"Reliability on {name}", charts.reliability(f"curve-{name}", one.bins, title), name))
    return drawn


def _case_lists(run: FinishedRun, baseline: FinishedRun | None, texts: Texts, count: int) -> list[CaseList]:
    """Returns the lists of cases. A case stands in the first list that it belongs to."""
    lists = [
        (
            "The worst cases",
            "Wrong on the most dimensions; of equals, those it was surest of.",
            examples.worst(run),
        ),
        (
            "The most surprising cases",
            "Wrong on any one dimension with the most confidence, those above left out. A judge tells no confidence.",
            examples.most_surprising(run),
        ),
    ]
    if baseline:
        note = "Wrong on overall where the baseline is right; the surest first, those above left out."
        lists.append(("What the baseline knew better", note, examples.lost(run, baseline)))
    shown: set[tuple[str, str]] = set()
    case_lists = []
    for title, note, rows in lists:
        new = [row for row in rows if row[0].key not in shown][:count]
        shown.update(row[0].key for row in new)
        case_lists.append(CaseList(title, note, [example(row, texts) for row in new]))
    return case_lists
