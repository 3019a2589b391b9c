"""The replay of an audit log as a page: whether answers have changed, and what that looked like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from medreward.bench.report.headline import Labels, Tone
from medreward.bench.report.lines import Course, bands, evidence, shares
from medreward.bench.report.page import render, words
from medreward.bench.report.replaying import Replay
from medreward.bench.report.report import Chart
from medreward.types import DECIDED, DIMENSIONS, WATCHED, Flag

LABELS: Final = Labels(
    "No image and no text is in this report.", "It was made of scores, flags and verdicts alone.", "plain"
)
SHOWN: Final = 4  # lines in a chart


@dataclass(frozen=True, slots=True)
class Row:
    """A watch in the table."""

    name: str
    statistic: float
    alarm: str  # what has happened, from which image on; empty without an alarm


def drift_page(replay: Replay) -> str:
    """Returns the page as HTML."""
    tone: Tone = "bad" if replay.alarms else "good"
    return render(
        "drift.html",
        labels=LABELS,
        replay=replay,
        tone=tone,
        word="Answers have changed" if replay.alarms else "No drift found",
        rows=_rows(replay),
        score_charts=_score_charts(replay),
        other_charts=_other_charts(replay),
    )


def _rows(replay: Replay) -> list[Row]:
    alarms = {alarm.name: alarm for alarm in replay.alarms}
    last = replay.parts[-1].statistics
    return [
        Row(name, last[name], f"{alarms[name].change}, found at image {alarms[name].sample}" if name in alarms else "")
        for name in WATCHED
    ]


def _course(replay: Replay) -> Course:
    return Course([part.last for part in replay.parts], replay.learnt)


def _alarm_at(replay: Replay, *names: str) -> int | None:
    return min((alarm.sample for alarm in replay.alarms if alarm.name in names), default=None)


def _score_charts(replay: Replay) -> list[Chart]:
    charts = []
    for name in DIMENSIONS:
        quantiles = [part.scores[name] for part in replay.parts if name in part.scores]
        if len(quantiles) == len(replay.parts):
            svg = bands(f"bands-{name}", _course(replay), quantiles, _alarm_at(replay, name), f"Scores of {name}")
            charts.append(Chart(name, svg, name))
    return charts


def _other_charts(replay: Replay) -> list[Chart]:
    course, charts = _course(replay), []
    if all(part.verdicts for part in replay.parts):
        mix = {str(verdict): [part.verdicts[verdict] for part in replay.parts] for verdict in DECIDED}
        alarm = _alarm_at(replay, *(f"verdict_{verdict}" for verdict in DECIDED))
        charts.append(Chart("Verdicts", shares("verdicts", course, mix, alarm, "Share of each verdict")))
    frequent = _first([max(part.flags[flag] for part in replay.parts) for flag in Flag], list(Flag))
    flags = {words(flag): [part.flags[flag] for part in replay.parts] for flag in frequent}
    if flags:
        alarm = _alarm_at(replay, *(f"flag_{flag}" for flag in frequent))
        charts.append(Chart("Flags", shares("flags", course, flags, alarm, "Share of answers with each flag")))
    strongest = _first([max(part.statistics[name] for part in replay.parts) for name in WATCHED], list(WATCHED))
    series = {words(name): [part.statistics[name] for part in replay.parts] for name in strongest}
    if series:
        charts.append(Chart("Evidence of a change", evidence("evidence", course, series, "Evidence, strongest first")))
    return charts


def _first(sizes: Sequence[float], names: Sequence[str]) -> list[str]:
    """Returns the names of the largest sizes above 0."""
    return [name for size, name in sorted(zip(sizes, names, strict=True), reverse=True)[:SHOWN] if size > 0]
