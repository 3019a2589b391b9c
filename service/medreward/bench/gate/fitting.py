"""Which runs can be held against each other at all. What cannot is no verdict: the gate could not run."""

import math
from collections.abc import Sequence

from medreward.bench.cases import Images
from medreward.bench.chooser import OK, by_logits
from medreward.bench.finished import FinishedRun
from medreward.bench.gate.checks import percent
from medreward.bench.gate.policy import NamedPolicy
from medreward.bench.sheet import PredictionRow
from medreward.errors import ConfigurationError


def refuse_broken(run: FinishedRun, dimensions: Sequence[str], images: Images = Images.OWN) -> None:
    """Refuses a run that contradicts itself, lacks a dimension that is needed, or was shown other images."""
    for prediction in run.predictions:
        if not _agrees_with_itself(prediction):
            raise ConfigurationError(
                f"{run.path} is damaged: the answer to {prediction.question_id} contradicts itself"
            )
    if lacking := [dimension for dimension in dimensions if dimension in run.missing]:
        raise ConfigurationError(
            f"the model of {run.path} has no {', '.join(lacking)}, which the policy decides on; "
            "use a policy whose `dimensions` leave it out"
        )
    if run.images != images:
        raise ConfigurationError(
            f"{run.path} was made with --images {run.images}; use a run that was made with --images {images}"
        )


def refuse_unpinned(policy: NamedPolicy, candidate: FinishedRun, baseline: FinishedRun | None) -> None:
    """Refuses what a promotion under this policy must not rest on."""
    pinned = policy.policy.pinned
    if not pinned:
        return
    if pinned.data and candidate.digest != pinned.data:
        raise ConfigurationError(
            f"policy {policy.name} decides on the data {pinned.data} alone; {candidate.path} is a run on "
            f"{candidate.digest}"
        )
    if others := [kind for kind in candidate.evidence if pinned.labels and kind not in pinned.labels]:
        raise ConfigurationError(
            f"policy {policy.name} decides on {' and '.join(pinned.labels)} labels alone; {candidate.path} has "
            f"{' and '.join(others)} ones"
        )
    if not pinned.baseline and not pinned.baseline_floors:
        return
    if not baseline:
        raise ConfigurationError(f"policy {policy.name} pins the baseline: name its run with --baseline")
    fingerprint = baseline.model.get("fingerprint")
    if pinned.baseline and fingerprint != pinned.baseline:
        raise ConfigurationError(
            f"policy {policy.name} wants the baseline {pinned.baseline}; {baseline.path} is a run of {fingerprint}"
        )
    for dimension, floor in pinned.baseline_floors.items():
        credit = baseline.column(dimension).credits
        if not len(credit) or credit.mean() < floor:
            seen = f"it has {percent(float(credit.mean()))}" if len(credit) else "nothing was measured there"
            raise ConfigurationError(
                f"policy {policy.name} wants a baseline of at least {percent(floor)} on {dimension}; "
                f"{seen} in {baseline.path}"
            )


def refuse_another_model(run: FinishedRun, candidate: FinishedRun) -> None:
    """Refuses a run of another model than the candidate's."""
    if run.model != candidate.model:
        raise ConfigurationError(f"{run.path} is a run of another model than {candidate.path}")


def _agrees_with_itself(prediction: PredictionRow) -> bool:
    """Returns whether numbers are finite and say what was chosen; what was not answered must have chosen nothing."""
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
