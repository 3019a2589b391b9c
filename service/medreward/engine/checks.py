"""What is refused before any work is done, the same at every door."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Final

from medreward.artifacts.manifest import Viewpoint
from medreward.engine.model import Model
from medreward.errors import Code, ItemError, RequestError
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Flag, Item, ScoreRequest, StepEnds, Turn

LARGEST_WEIGHT: Final = 1_000_000  # a reward stays a finite number


def check_step_count(count: int, limits: Settings) -> None:
    """Refuses more ends of steps than a response may have."""
    if count > limits.response_steps:
        detail = f"the request has more than {limits.response_steps} steps"
        raise RequestError(Code.TOO_MANY, detail, "/options/steps")


def check_steps(steps: StepEnds, limits: Settings) -> None:
    """Refuses a list of ends of steps that is empty, too long or does not rise. Responses are not looked at."""
    if not isinstance(steps, tuple):
        return
    field = "/options/steps"
    if not steps:
        raise RequestError(Code.INVALID_FIELD, "give the end of one step at least, or leave steps out", field)
    check_step_count(len(steps), limits)
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
        for name, most in (("images", limits.item_images), ("history", limits.item_turns)):
            if len(getattr(item, name)) > most:
                detail = f"the item has more than {most} {'turns' if name == 'history' else name}"
                raise RequestError(Code.TOO_MANY, detail, f"/items/{i}/{name}")
        if not item.responses:
            raise RequestError(Code.INVALID_FIELD, "at least one response is needed", f"/items/{i}/responses")
        if len(item.responses) > limits.responses:
            raise RequestError(
                Code.TOO_MANY,
                f"the item has more than {limits.responses} responses: send it in parts",
                f"/items/{i}/responses",
            )


def weights_of(request: ScoreRequest, model: Model) -> Mapping[str, float]:
    """Returns the weights of the reward: the request's, those of the viewpoint that it names, or else the model's.

    Refuses weights that are wrong, a viewpoint that the model has not, and weights beside a viewpoint.
    """
    if request.viewpoint is not None:
        return _weights_of_viewpoint(request.viewpoint, request, model.manifest.viewpoints)
    if not request.weights:
        return model.default_weights
    for name, weight in request.weights.items():
        if name not in DIMENSIONS:
            raise RequestError(Code.INVALID_FIELD, f"a weight can be given to: {', '.join(DIMENSIONS)}", "/weights")
        if not abs(weight) <= LARGEST_WEIGHT:  # nor NaN
            detail = f"a weight must lie between -{LARGEST_WEIGHT} and {LARGEST_WEIGHT}"
            raise RequestError(Code.INVALID_FIELD, detail, f"/weights/{name}")
    return request.weights


def _weights_of_viewpoint(name: str, request: ScoreRequest, viewpoints: Mapping[str, Viewpoint]) -> Mapping[str, float]:
    if request.weights:
        detail = "weights and viewpoint exclude each other, because a viewpoint is a set of weights: send one of them"
        raise RequestError(Code.INVALID_FIELD, detail, "/viewpoint")
    if name not in viewpoints:
        there = f"it has {', '.join(viewpoints)}" if viewpoints else "it has none"
        detail = f"the model that is served has no viewpoint of this name: {there}"
        raise RequestError(Code.VIEWPOINT_UNKNOWN, detail, "/viewpoint")
    return viewpoints[name].weights


def readable(item: Item, model: Model, limits: Settings) -> tuple[Item, tuple[Flag, ...]]:
    """Returns what the model reads of the item, and a flag where that is not all of it.

    Refuses an item that has what this model cannot read, lacks an image that it needs, or has turns in a wrong order.
    """
    flags: tuple[Flag, ...] = ()
    if item.history and not model.reads_turns:
        if limits.unread_history == "refuse":
            raise ItemError(Code.UNSUPPORTED_FIELD, "this model reads no turns before the question", "history")
        check_turns(item)
        item, flags = replace(item, history=()), (Flag.HISTORY_IGNORED,)
    if len(item.images) > 1 and not model.reads_images:
        raise ItemError(Code.UNSUPPORTED_FIELD, "this model reads one image", "images")
    if not item.images and model.manifest.image.required:
        raise ItemError(Code.IMAGE_REQUIRED, "this model needs an image", "image")
    check_turns(item)
    if item.history and item.history[0].role == "system" and not model.reads_system:
        raise ItemError(Code.UNSUPPORTED_FIELD, "the chat template of this model takes no system turn", "history/0")
    return item, flags


def check_turns(item: Item) -> None:
    """Refuses turns in an order that no chat has, a turn that says nothing, and images that are not there."""
    shown: dict[int, int] = {}
    turns = [*enumerate(item.history)]
    if turns and turns[0][1].role == "system":
        _, system = turns.pop(0)
        _check_turn(0, system, item, shown)
    for number, turn in turns:
        wanted = ("user", "assistant")[(number - turns[0][0]) % 2]
        if turn.role != wanted:
            raise _bad_turn(
                number, f"this turn must be of the {wanted}: after a system turn, user and assistant take turns"
            )
        _check_turn(number, turn, item, shown)
    if turns and turns[-1][1].role == "user":
        raise _bad_turn(turns[-1][0], "the last turn must be of the assistant, because the question follows it")


def _check_turn(number: int, turn: Turn, item: Item, shown: dict[int, int]) -> None:
    """Refuses a turn that says nothing or shows a wrong image. `shown` is the turn of each image that earlier ones
    show."""
    if not turn.images and not turn.text.strip():
        raise _bad_turn(number, "the turn is empty: leave it out, or say something in it")
    if turn.images and turn.role != "user":
        raise _bad_turn(number, "only a turn of the user may show an image")
    for place in turn.images:
        if not 0 <= place < len(item.images):
            there = f"it has {len(item.images)}, counted from 0" if item.images else "it has none"
            raise _bad_turn(number, f"the turn shows image {place} of the item, and {there}")
        if place in shown:
            detail = f"image {place} is shown by turn {shown[place]} already: to show it twice, list it twice in images"
            raise _bad_turn(number, detail)
        shown[place] = number


def _bad_turn(number: int, detail: str) -> ItemError:
    return ItemError(Code.INVALID_FIELD, detail, f"history/{number}")
