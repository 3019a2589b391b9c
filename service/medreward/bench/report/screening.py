"""What a screening policy does to labelled answers, as a page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from markupsafe import Markup

from medreward.bench.report import charts
from medreward.bench.report.charts import Mark, Series
from medreward.bench.report.headline import labels_of
from medreward.bench.report.page import render, words
from medreward.bench.screening.checking import PARTS, Checked, Part, Share
from medreward.bench.screening.estimating import Estimate
from medreward.types import ModelRef, Verdict

ESTIMATES: Final[Mapping[str, str]] = {
    "false_allow": "Of wrong answers, allowed",
    "wrong_among_allowed": "Of allowed answers, wrong",
}


def page(checked: Checked, model: ModelRef, data: str, estimates: Mapping[str, Estimate | None]) -> str:
    """Returns the page as HTML, which loads nothing."""
    stated = checked.policy.policy.false_allow
    limit = stated.at_most if stated else None
    return render(
        "screening.html",
        labels=labels_of(checked.labels),
        checked=checked,
        policy=checked.policy.policy,
        said=checked.in_words(),
        data=data,
        verdicts=list(Verdict),
        charts=[(kind, chart) for kind in PARTS if (chart := _chart(kind, checked.parts, limit))],
        parts={kind: [part for part in checked.parts if part.kind == kind] for kind in PARTS},
        estimates={ESTIMATES[name]: found for name, found in estimates.items()},
        provenance=list(_provenance(checked, model, data)),
    )


def _chart(kind: str, parts: Sequence[Part], limit: float | None) -> Markup | None:
    """Returns the shares of allowed answers by organ, department or set; None where there are fewer than two."""
    rows = [part for part in parts if part.kind == kind]
    if len(rows) < 2:
        return None
    wrong, right = ([_mark(getattr(row, name)) for row in rows] for name in ("wrong_allowed", "right_allowed"))
    names = [words(row.name) for row in rows]
    series = [Series("wrong answers", wrong), Series("right answers", right)]
    return charts.shares(f"by-{kind}", names, series, f"Allowed by {kind}", None if limit is None else 100 * limit)


def _mark(share: Share) -> Mark | None:
    if share.value is None or share.low is None or share.high is None:
        return None
    return Mark(100 * share.value, 100 * share.low, 100 * share.high)


def _provenance(checked: Checked, model: ModelRef, data: str) -> Iterator[tuple[str, str]]:
    policy = checked.policy
    yield "policy", f"{policy.policy.name} {policy.policy.version} ({policy.digest})"
    yield "model", f"{model.name} {model.version} ({model.fingerprint})"
    yield "runtime", str(model.runtime)
    yield "evidence of the model", model.evidence
    yield "labelled answers", data
    if policy.policy.false_allow:
        yield "made from", policy.policy.false_allow.data
