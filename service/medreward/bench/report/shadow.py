"""The agreement of a shadow with what was served, as a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medreward.bench.report.agreeing import Agreement
from medreward.bench.report.drift import LABELS
from medreward.bench.report.lines import Course, shares
from medreward.bench.report.page import render
from medreward.types import Verdict


@dataclass(frozen=True, slots=True)
class Cell:
    count: int
    share: float  # of the row
    agrees: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What was served, and how the shadow decided on these answers."""

    served: Verdict
    total: int
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Section:
    agreement: Agreement
    rows: Sequence[Row]
    chart: Markup


def shadow_page(agreements: Sequence[Agreement]) -> str:
    """Returns the page as HTML: a section for each pair of deciders."""
    sections = [Section(one, _rows(one), _chart(n, one)) for n, one in enumerate(agreements)]
    return render("shadow.html", labels=LABELS, sections=sections, verdicts=list(Verdict))


def _rows(agreement: Agreement) -> list[Row]:
    outcomes, rows = agreement.outcomes, []
    for served in Verdict:
        total = sum(outcomes[served, shadow] for shadow in Verdict)
        cells = [
            Cell(outcomes[served, shadow], outcomes[served, shadow] / max(total, 1), served is shadow)
            for shadow in Verdict
        ]
        rows.append(Row(served, total, cells))
    return rows


def _chart(number: int, agreement: Agreement) -> Markup:
    ends, parts = zip(*agreement.course(), strict=True)
    series = {name: [part[name] for part in parts] for name in parts[0]}
    course = Course(ends, 0, "answers, in the order of the file")
    return shares(f"agreement-{number}", course, series, None, "Share of answers on which both agree")
