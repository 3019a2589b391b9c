"""summary.json: the official figures, the strict ones, and what a reader needs to judge them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from medreward.bench import official, verdict
from medreward.bench.answering import missing
from medreward.bench.cases import ANSWERS, Case
from medreward.bench.figures import macro, micro, row, shortcut_accuracies
from medreward.bench.finished import Asked, Measured, Predicted, measure
from medreward.bench.rundir import asked as asked_of
from medreward.types import DIMENSIONS

Answered = tuple[Case, Mapping[str, Any]]


def summarise(cases: Sequence[Case], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the answers alone: the same predictions give the same bytes."""
    asked = [msgspec.convert(asked_of(case), Asked) for case in cases]
    predicted = [msgspec.convert(prediction, Predicted) for prediction in predictions]
    is_judge = any("replies" in prediction for prediction in predictions)
    summary: dict[str, Any] = {
        "cases": len(cases),
        "statuses": dict(sorted(Counter(prediction["status"] for prediction in predictions).items())),
        "official": _official(list(zip(cases, predictions, strict=True))),
        "strict": {
            "micro": _strict(asked, predicted, micro),
            "macro": _strict(asked, predicted, macro),
            "organ": _split(asked, predicted, [case.organ for case in asked]),
            "department": _split(asked, predicted, [case.department for case in asked]),
            "question_type": _split(asked, predicted, [case.question_type for case in asked]),
        },
        "shortcuts": {d: shortcut_accuracies(measure(asked, predicted, d)) for d in DIMENSIONS},
    }
    return summary | ({"judge": _of_judge(predictions)} if is_judge else {})


Figure = Callable[[Measured], dict[str, Any]]


def _strict(asked: Sequence[Asked], predicted: Sequence[Predicted], figure: Figure) -> dict[str, Any]:
    """Of a dimension that the model has not there is no accuracy: nothing was measured."""
    lacks = missing(prediction.logits for prediction in predicted)
    measured = {dimension: measure(asked, predicted, dimension) for dimension in DIMENSIONS}
    return {d: row(None, None, one) if d in lacks else figure(one) for d, one in measured.items()}


def _split(asked: Sequence[Asked], predicted: Sequence[Predicted], names: Sequence[str | None]) -> dict[str, Any]:
    """Returns a micro table for each name that some case has."""
    tables = {}
    for name in sorted({name for name in names if name is not None}):
        places = [place for place, one in enumerate(names) if one == name]
        tables[name] = _strict([asked[place] for place in places], [predicted[place] for place in places], micro)
    return tables


def _official(answered: Iterable[Answered]) -> dict[str, dict[str, float]]:
    labels: dict[str, list[tuple[Any, Mapping[str, str]]]] = {}
    verdicts: dict[str, list[tuple[Any, Mapping[str, str] | None]]] = {}
    for case, prediction in answered:
        labels.setdefault(case.organ, []).append((case.question_id, case.labels))
        verdicts.setdefault(case.organ, []).append((case.question_id, _official_verdict(prediction)))
    return official.table(labels, verdicts)


def _official_verdict(prediction: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Of a judge, its first text on the order of the files, read as the benchmark's script reads it."""
    if "replies" not in prediction:
        return {dimension: choice for dimension, choice in prediction["choices"].items() if choice in ANSWERS}
    text = prediction["replies"][0]["text"]
    return None if text is None else official.read_verdict(text)


def _of_judge(predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the order of the answers decides, and how many texts were no votes."""
    replies = [prediction.get("replies", ()) for prediction in predictions]
    texts = [reply for some in replies for reply in some]
    return {
        "replies": len(texts),
        "unreadable": sum(reply["choices"] is None for reply in texts),
        "order": {dimension: _order(replies, dimension) for dimension in DIMENSIONS},
    }


def _order(replies: Iterable[Sequence[Mapping[str, Any]]], dimension: str) -> dict[str, Any]:
    """`first` is the share of votes for the answer that was shown first; without bias it is near a half."""
    pairs, votes, first = [], 0, 0
    for some in replies:
        by_order = {
            order: [reply["choices"] for reply in some if reply["order"] == order and reply["choices"]]
            for order in ("AB", "BA")
        }
        if all(by_order.values()):
            pairs.append([verdict.majority(choices, dimension) for choices in by_order.values()])
        votes += sum(map(len, by_order.values()))
        first += sum(choices[dimension] == order[0] for order, listed in by_order.items() for choices in listed)
    consistent = sum(a == b for a, b in pairs)
    return {
        "n": len(pairs),
        "consistent": consistent,
        "consistency": round(consistent / len(pairs), 6) if pairs else None,
        "first": round(first / votes, 6) if votes else None,
    }
