"""What is refused before any work is done, the same at every door."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from medreward.engine.model import Model
from medreward.errors import Code, ItemError, RequestError
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Item, ScoreRequest, StepEnds

LARGEST_WEIGHT: Final = 1_000_000  # a reward stays a finite number


def check_steps(steps: StepEnds, limits: Settings) -> None:
    """Refuses a list of ends of steps that is empty, too long or does not rise. Responses are not looked at."""
    if not isinstance(steps, tuple):
        return
    field = "/options/steps"
    if not steps:
        raise RequestError(Code.INVALID_FIELD, "give the end of one step at least, or leave steps out", field)
    if len(steps) > limits.steps:
        raise RequestError(Code.TOO_MANY, f"the request has more than {limits.steps} steps", field)
    for place, (before, end) in enumerate(pairwise((-1, *steps))):
        if end <= before:
            detail = "the end of a step must be 0 or more, and lie behind that of the step before it"
            raise RequestError(Code.INVALID_FIELD, detail, f"{field}/{place}")


def check_request(request: ScoreRequest, model: Model, limits: Settings) -> None:
    """Refuses a request that is for another model, has no item or response, or has too many of them."""
    ours = model.manifest
    if request.fingerprint is not None and request.fingerprint != ours.fingerprint:
        raise RequestError(
            Code.VERSION_CHANGED,
            f"the server has {ours.name} {ours.version}, {ours.fingerprint}: it is not the model that was asked for",
        )
    check_steps(request.options.steps, limits)
    if not request.items:
        raise RequestError(Code.INVALID_FIELD, "at least one item is needed", "/items")
    if len(request.items) > limits.items:
        raise RequestError(Code.TOO_MANY, f"the request has more than {limits.items} items: send it in parts", "/items")
    for i, item in enumerate(request.items):
        if not item.responses:
            raise RequestError(Code.INVALID_FIELD, "at least one response is needed", f"/items/{i}/responses")
        if len(item.responses) > limits.responses:
            raise RequestError(
                Code.TOO_MANY,
                f"the item has more than {limits.responses} responses: send it in parts",
                f"/items/{i}/responses",
            )


def weights_of(request: ScoreRequest, model: Model) -> Mapping[str, float]:
    """Returns the request's weights, or the model's where it gives none. Refuses weights that are wrong."""
    if not request.weights:
        return model.default_weights
    for name, weight in request.weights.items():
        if name not in DIMENSIONS:
            raise RequestError(Code.INVALID_FIELD, f"a weight can be given to: {', '.join(DIMENSIONS)}", "/weights")
        if not abs(weight) <= LARGEST_WEIGHT:  # nor NaN
            detail = f"a weight must lie between -{LARGEST_WEIGHT} and {LARGEST_WEIGHT}"
            raise RequestError(Code.INVALID_FIELD, detail, f"/weights/{name}")
    return request.weights


def check_item(item: Item, model: Model) -> None:
    """Refuses an item that has what this model cannot read, or lacks an image that it needs."""
    if item.history:
        raise ItemError(Code.UNSUPPORTED_FIELD, "this model reads no turns before the question", "history")
    if len(item.images) > 1:
        raise ItemError(Code.UNSUPPORTED_FIELD, "this model reads one image", "images")
    if not item.images and model.manifest.image.required:
        raise ItemError(Code.IMAGE_REQUIRED, "this model needs an image", "image")
