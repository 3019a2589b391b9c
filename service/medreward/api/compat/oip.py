"""The Open Inference Protocol, version 2, however it travels: its model, its tensors, their texts and numbers."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from medreward import __version__
from medreward.api.compat.asking import Answer, Sample
from medreward.api.compat.labels import SHA256, image_named
from medreward.engine.engine import Engine
from medreward.errors import Code, ItemError, RequestError
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Base64Image, ImageSource, InlineImage, Item

EXTENSIONS: Final = ("binary_tensor_data",)
INPUTS: Final = ("image", "question", "response")
#: The shape of each output for one row of the inputs.
OUTPUTS: Final[Mapping[str, Sequence[int]]] = {"logits": [len(DIMENSIONS)], "scores": [len(DIMENSIONS)], "reward": []}
SIDES: Final = 8  # of a shape
LENGTH_BYTES: Final = 4  # of the length that stands before each element of a binary tensor

SERVER: Final[dict[str, Any]] = {"name": "medreward", "version": __version__, "extensions": [*EXTENSIONS]}

#: An element of a BYTES tensor: a text in JSON, bytes elsewhere.
Element = str | bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input. `pointer` leads to it in the request."""

    name: str
    elements: Sequence[Element]
    pointer: str


@dataclass(frozen=True, slots=True)
class Output:
    name: str
    shape: list[int]
    numbers: list[float | None]

    def binary(self) -> bytes:
        """Returns the numbers as FP64; one that is missing is NaN."""
        return np.array(self.numbers, "<f8").tobytes()


def model_about(engine: Engine) -> dict[str, Any]:
    """Returns the metadata of the model that is served."""
    ref = engine.serving.ref
    return {
        "name": ref.name,
        "versions": [ref.version],
        "platform": "medreward",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in INPUTS],
        "outputs": [{"name": name, "datatype": "FP64", "shape": [-1, *shape]} for name, shape in OUTPUTS.items()],
    }


def check_model(engine: Engine, name: str, version: str = "") -> None:
    """Refuses another model than the one that is served. A version may be cut short: `1` is good for 1.1.0."""
    ref = engine.serving.ref
    if name != ref.name:
        raise RequestError(Code.NOT_FOUND, f"there is no such model here: {ref.name} is served")
    if version and f"{ref.version}.".find(f"{version}.") != 0:
        raise RequestError(Code.NOT_FOUND, f"there is no such version here: {ref.version} is served")


def tensor(
    name: str, datatype: str, shape: Sequence[int], elements: Sequence[Element], pointer: str, is_base64: bool = False
) -> Tensor:
    """Returns an input; refuses one of another type, or with another number of elements than its shape has."""
    if datatype != "BYTES":
        raise RequestError(Code.INVALID_FIELD, "the datatype of an input must be BYTES", f"{pointer}/datatype")
    if len(shape) > SIDES or min(shape, default=0) < 0 or math.prod(shape) != len(elements):
        detail = "the shape must have as many places as the input has elements"
        raise RequestError(Code.INVALID_FIELD, detail, f"{pointer}/shape")
    if is_base64 and name != "image":  # that of an image is base64 in any case
        try:
            elements = [base64.b64decode(element, validate=True) for element in elements]
        except ValueError:
            raise RequestError(Code.INVALID_FIELD, "an element is not base64", f"{pointer}/data") from None
    return Tensor(name, elements, pointer)


def elements_of(binary: bytes, pointer: str, settings: Settings) -> list[Element]:
    """Returns the elements of a tensor that came as bytes: before each stands its length. Refuses one that is cut
    short, and one of more elements than a request may have values."""
    elements: list[Element] = []
    at = 0
    while at < len(binary):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(binary[at:start], "little")
        elements.append(binary[start:at])
        if len(elements) > settings.json_values:
            raise RequestError(Code.TOO_MANY, f"the input has more than {settings.json_values} elements", pointer)
    if at != len(binary):
        raise RequestError(Code.MALFORMED, "the bytes of the input end within an element", pointer)
    return elements


def samples(tensors: Sequence[Tensor]) -> list[Sample]:
    """Returns the rows of the inputs as samples. The image may be left out, and an empty element means none."""
    given = {tensor.name: tensor for tensor in tensors}
    for name in ("question", "response"):
        if name not in given:
            raise RequestError(Code.INVALID_FIELD, f"the input {name} is missing", "/inputs")
    count = len(given["question"].elements)
    for name in INPUTS:
        if name in given and len(given[name].elements) != count:
            detail = "all inputs must have as many elements as question"
            raise RequestError(Code.INVALID_FIELD, detail, given[name].pointer)
    images = given["image"].elements if "image" in given else [b""] * count
    rows = zip(images, given["question"].elements, given["response"].elements, strict=True)
    return [_sample(f"/inputs/{i}", *row) for i, row in enumerate(rows)]


def _sample(pointer: str, image: Element, question: Element, response: Element) -> Sample:
    try:
        images = (_image(image),) if image else ()
        return Sample(pointer, Item(_text(question, "question"), (_text(response, "response"),), images))
    except ItemError as error:
        return Sample(pointer, error)


def _text(element: Element, field: str) -> str:
    try:
        return element if isinstance(element, str) else element.decode()
    except ValueError:
        raise ItemError(Code.BAD_TEXT, "the text is not UTF-8", field) from None


def _image(element: Element) -> ImageSource:
    """Returns an image that is given as a file's bytes, in JSON as their base64, or named by a sha256 or a data URL."""
    start = element[:64] if isinstance(element, str) else element[:64].decode("latin-1")
    if (len(element) == len(start) and SHA256.fullmatch(start)) or start[:5].lower() == "data:":
        return image_named(_text(element, "image"))
    return Base64Image(element) if isinstance(element, str) else InlineImage(element)


def outputs(answers: Sequence[Answer], wanted: Sequence[str]) -> list[Output]:
    """Returns these outputs, or all of them where none is named; refuses a name that no output has."""
    for i, name in enumerate(wanted):
        if name not in OUTPUTS:
            raise RequestError(Code.INVALID_FIELD, f"an output is one of: {', '.join(OUTPUTS)}", f"/outputs/{i}/name")
    numbers = {
        "logits": [number for answer in answers for number in answer.logits],
        "scores": [number for answer in answers for number in answer.scores],
        "reward": [answer.reward for answer in answers],
    }
    return [Output(name, [len(answers), *OUTPUTS[name]], numbers[name]) for name in wanted or OUTPUTS]
