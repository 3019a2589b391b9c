"""Which runs can be held against each other at all. What cannot is no verdict: the gate could not run."""

import math

from medreward.bench.answering import OK, by_logits
from medreward.bench.blinding import Images
from medreward.bench.finished import FinishedRun, Predicted
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS


def refuse_broken(run: FinishedRun, images: Images = Images.OWN) -> None:
    for prediction in run.predictions:
        if not _agrees_with_itself(prediction):
            raise ConfigurationError(
                f"{run.path} is damaged: the answer to {prediction.question_id} contradicts itself"
            )
    if run.missing:
        names = ", ".join(dimension for dimension in DIMENSIONS if dimension in run.missing)
        raise ConfigurationError(f"the gate decides on all six dimensions, and the model of {run.path} has no {names}")
    if run.images != images:
        raise ConfigurationError(f"{run.path} was shown {run.images} images, wanted is a run with {images} ones")


def refuse_another_set(run: FinishedRun, candidate: FinishedRun) -> None:
    if run.digest != candidate.digest:
        raise ConfigurationError(
            f"{run.path} is of other data ({run.digest}) than {candidate.path} ({candidate.digest})"
        )
    if list(run.cases) != list(candidate.cases):
        raise ConfigurationError(
            f"{run.path} and {candidate.path} are not of the same cases: was one run with --limit?"
        )


def refuse_another_model(run: FinishedRun, candidate: FinishedRun) -> None:
    if run.about["model"] != candidate.about["model"]:
        raise ConfigurationError(f"{run.path} is of another model than {candidate.path}")


def _agrees_with_itself(prediction: Predicted) -> bool:
    """Numbers are finite and say what was chosen; what was not answered chose nothing."""
    choices, logits = prediction.choices, prediction.logits
    if prediction.status != OK:
        return logits is None and set(choices.values()) == {None}
    if logits is None:  # a judge
        return None not in choices.values()
    numbers = [number for six in logits.values() for number in six.values()]
    return (
        all(number is None or math.isfinite(number) for number in numbers)
        and by_logits(logits["A"], logits["B"]).choices == choices
    )
