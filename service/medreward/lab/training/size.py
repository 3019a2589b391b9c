"""How large a model is, and how long it takes in one thread."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np
import onnx

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import ModelImage
from medreward.lab.training.served import Served

TIMES: Final = 15
QUESTION: Final = "Which abnormality does this picture show, and on which side?"
RESPONSES: Final = tuple(
    f"There is a {size} {what} in the lower part of the left lung."
    for what in ("mass", "cyst", "nodule", "cavity")
    for size in ("small", "large")
)
NUMBERS: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)


def size(folder: Path, manifest: Manifest) -> dict[str, int]:
    """Returns the bytes of the files that decide a score, and the numbers in the graphs."""
    assert manifest.onnx
    assert manifest.text.tokenizer
    graphs = (manifest.onnx.image_graph, manifest.onnx.score_graph)
    return {
        "bytes": sum((folder / name).stat().st_size for name in (*graphs, manifest.text.tokenizer)),
        "parameters": sum(
            int(np.prod(weight.dims))
            for name in graphs
            for weight in onnx.load(folder / name).graph.initializer
            if weight.data_type in NUMBERS
        ),
    }


def latency(folder: Path, manifest: Manifest, times: int = TIMES) -> dict[str, float]:
    """Returns median milliseconds from pixels and ids to logits."""
    served = Served(folder, manifest, threads=1)
    served.backend.warm_up()
    numbers = count()
    found = {}
    for name, responses in (("one", RESPONSES[:1]), ("eight", RESPONSES)):
        found[f"{name}_new_image"] = median(_took(served, manifest, next(numbers), responses) for _ in range(times))
        last = next(numbers)
        _took(served, manifest, last, responses)
        found[f"{name}_cached_image"] = median(_took(served, manifest, last, responses) for _ in range(times))
    return found


def _took(served: Served, manifest: Manifest, number: int, responses: Sequence[str]) -> float:
    shape = manifest.one_size.height, manifest.one_size.width, 3
    pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    group = served.group(ModelImage(str(number), pixels), QUESTION, responses)
    start = perf_counter()
    served.backend.score([group])
    return 1000 * (perf_counter() - start)
