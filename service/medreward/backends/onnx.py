"""Runs a model of two ONNX graphs. One makes visual tokens of an image, which are kept; the other makes logits of these
and of texts.

On a CPU each row is a run of its own, at its own length, in one thread: the shapes of its kernels, and so the bits of
its logits, depend on nothing else. Cores are kept busy by rows side by side. A GPU needs batches to be worth its while.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import CostModel, Counts, Group, Logits, ModelImage
from medreward.backends.reading import joined, parts
from medreward.caches import MIB, ByteCache
from medreward.cores import available_cores
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Runtime

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"

#: Inputs and outputs of the graphs.
IMAGE_GRAPH: Final = {"pixels": "tensor(uint8)", "tokens": "tensor(float)"}
SCORE_GRAPH: Final = {
    "image_tokens": "tensor(float)",
    "image_mask": "tensor(float)",
    "ids": "tensor(int64)",
    "mask": "tensor(int64)",
    "logits": "tensor(float)",
}

ImageTokens = NDArray[np.float32]  # visual tokens, width


@dataclass(frozen=True, slots=True)
class Row:
    """A part of an answer with all that decides its logits. Without an image there are no visual tokens."""

    image_tokens: ImageTokens | None
    ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RunShape:
    """How rows are put into runs of the score graph."""

    pad_to: int  # lengths are rounded up to a multiple of it
    rows: int  # most rows in a run
    tokens: int  # most tokens in a run of several rows, padding included

    def padded(self, length: int) -> int:
        """Returns the length to which a row of this length is padded."""
        return max(1, -(-length // self.pad_to)) * self.pad_to

    def runs(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yields the indices of the rows of each run. All rows of a run have one padded length."""
        by_padded: defaultdict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(lengths):
            by_padded[self.padded(length)].append(index)
        for padded, indices in by_padded.items():
            size = max(1, min(self.rows, self.tokens // padded))
            yield from (indices[start : start + size] for start in range(0, len(indices), size))


RUN_SHAPES: Final = {
    "cpu": RunShape(pad_to=1, rows=1, tokens=0),
    "cuda": RunShape(pad_to=32, rows=32, tokens=16_384),
}


class OnnxBackend:
    """Runs prompt and answer together over cached visual tokens, so that every answer is a prefix run of its own.

    Opening fails with a ConfigurationError for graphs that cannot be loaded or do not fit the manifest.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        device: str = "auto",
        threads: int = 0,
        image_cache_bytes: int = 256 * MIB,
    ) -> None:
        if manifest.onnx is None:
            raise ConfigurationError(f"model {manifest.name} has no ONNX graphs")
        device = choose_device(device)
        self.runtime: Final = Runtime("onnx", device, "fp32")
        self._image_graph = Graph(folder / manifest.onnx.image_graph, device, IMAGE_GRAPH)
        self._score_graph = Graph(folder / manifest.onnx.score_graph, device, SCORE_GRAPH)
        self._is_on_gpu = device == "cuda"
        self._pixels_shape = (manifest.one_size.height, manifest.one_size.width, 3)
        self._no_image: ImageTokens = np.zeros(self._score_graph.row_shape("image_tokens"), np.float32)
        self._head_shape = self._score_graph.row_shape("logits")
        dimensions = len(manifest.dimensions)
        # A model of all six may have a column of strangeness behind them; with fewer it could be a sixth left unnamed.
        columns = (dimensions, dimensions + 1) if dimensions == len(DIMENSIONS) else (dimensions,)
        fits = (
            self._image_graph.row_shape("pixels") == self._pixels_shape
            and self._image_graph.row_shape("tokens") == self._no_image.shape
            and self._head_shape[1] in columns
        )
        if not fits:
            raise ConfigurationError(
                "the shapes of the image graph, the score graph and the manifest do not fit together"
            )
        self._reading = manifest.reading
        self._run_shape = RUN_SHAPES[device]
        # A GPU is fed by one caller; on a CPU a run uses one core.
        self._threads = 1 if device == "cuda" else threads or available_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="onnx")
        self._cache: ByteCache[NDArray[np.float32]] = ByteCache(image_cache_bytes)
        self._counts = Counts()

    @property
    def cost(self) -> CostModel:
        """Each answer runs over the visual tokens, even where they are zeros. Only the image graph comes on top."""
        visual = len(self._no_image)
        return CostModel(image=visual, row=visual, pad_to=self._run_shape.pad_to)

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        with self._counts.timed("encode"):
            images = self._image_tokens([group.image for group in groups if group.image])
        rows: list[Row] = []
        counts: list[int] = []  # of the parts of each answer
        for group in groups:
            tokens = images[group.image.key] if group.image else None
            for answer in group.answers:
                read = parts(answer, self._reading) if self._reading else [answer]
                rows += [Row(tokens, np.array([*group.prompt, *part], np.int64)) for part in read]
                counts.append(len(read))
        with self._counts.timed("answers"):
            logits = self._score_rows(rows)
        self._counts.prefix_runs += len(rows)
        answers = np.split(logits, [*accumulate(counts)][:-1]) if counts else []
        whole = np.stack([*map(joined, answers)]) if counts else logits
        ends = accumulate(len(group.answers) for group in groups)
        return [whole[end - len(group.answers) : end] for group, end in zip(groups, ends, strict=True)]

    def warm_up(self) -> None:
        tokens = self._encode(np.zeros(self._pixels_shape, np.uint8))
        self._score_rows([Row(tokens, np.zeros(64, np.int64))] * self._threads)

    def release(self) -> None:
        self._cache.clear()

    def rest(self) -> None:
        """On a CPU the weights are where they stay. A session on a GPU cannot be moved: it is closed, and its file
        stays in the memory that the kernel keeps files in."""
        self._cache.clear()
        if self._is_on_gpu:
            self._image_graph.close()
            self._score_graph.close()

    def resume(self) -> None:
        if self._is_on_gpu:
            self._image_graph.open()
            self._score_graph.open()

    def take_counts(self) -> Counts:
        counts, self._counts = self._counts, Counts()
        return counts

    def _image_tokens(self, images: Sequence[ModelImage]) -> dict[str, ImageTokens]:
        """Returns visual tokens by cache key. Each image is encoded once."""
        distinct = {image.key: image for image in images}
        tokens = {key: kept for key in distinct if (kept := self._cache.get(key)) is not None}
        missing = [image for key, image in distinct.items() if key not in tokens]
        encoded = self._pool.map(self._encode, [image.pixels for image in missing])
        for image, of_image in zip(missing, encoded, strict=True):
            tokens[image.key] = of_image
            self._cache.put(image.key, of_image)
        self._counts.image_encodes += len(missing)
        self._counts.image_hits += len(images) - len(missing)
        return tokens

    def _encode(self, pixels: NDArray[np.uint8]) -> ImageTokens:
        tokens: ImageTokens = self._image_graph.run({"pixels": pixels[None]})[0]
        return tokens

    def _score_rows(self, rows: Sequence[Row]) -> Logits:
        runs = list(self._run_shape.runs([len(row.ids) for row in rows]))
        results = self._pool.map(self._run, ([rows[index] for index in run] for run in runs))
        logits = np.empty((len(rows), *self._head_shape), np.float32)
        for run, result in zip(runs, results, strict=True):
            logits[run] = result
        return logits

    def _run(self, rows: Sequence[Row]) -> Logits:
        longest = self._run_shape.padded(max(len(row.ids) for row in rows))
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = row.ids
            mask[index, : len(row.ids)] = 1
        inputs: dict[str, NDArray[Any]] = {
            "image_tokens": np.stack([self._no_image if r.image_tokens is None else r.image_tokens for r in rows]),
            "image_mask": np.array([r.image_tokens is not None for r in rows], np.float32),
            "ids": ids,
            "mask": mask,
        }
        return self._score_graph.run(inputs)


class Graph:
    """A graph with one output, open in ONNX Runtime on one device.

    Opening fails with a ConfigurationError unless it has the inputs and outputs of the signature.
    """

    def __init__(self, path: Path, device: str, signature: Mapping[str, str]) -> None:
        self._path = path
        self._device = device
        self.open()
        self._nodes = {node.name: node for node in (*self._session.get_inputs(), *self._session.get_outputs())}
        if {name: node.type for name, node in self._nodes.items()} != signature:
            raise ConfigurationError(f"{path} must have the inputs and outputs {', '.join(signature)}")

    def open(self) -> None:
        """Makes the session. Fails with a ConfigurationError where the file or the device is not as it must be."""
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # see the top of this file
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it keeps a plan for every length it ever saw
        missing = load_cuda(ort) if self._device == "cuda" else ""
        # TF32 would keep 10 bits of a number.
        providers = [(CUDA, {"use_tf32": 0}), CPU] if self._device == "cuda" else [CPU]
        try:
            self._session = ort.InferenceSession(str(self._path), options, providers=providers)
        except Exception as error:
            raise ConfigurationError(f"ONNX Runtime cannot load {self._path}") from error
        if self._device == "cuda" and CUDA not in self._session.get_providers():
            raise ConfigurationError(f"ONNX Runtime found no usable CUDA device; choose device cpu. {missing}".strip())

    def close(self) -> None:
        """Ends the session, which gives the device's memory back; `open` makes another."""
        del self._session

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape behind the batch axis. Fails where the graph leaves an axis of it open."""
        shape = tuple(self._nodes[name].shape[1:])
        if not all(isinstance(axis, int) for axis in shape):
            raise ConfigurationError(f"{self._path}: {name} may leave no axis open but the first")
        return shape

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return output


def choose_device(wanted: str) -> str:
    """Returns cpu or cuda. `auto` takes CUDA where the installed ONNX Runtime has it; `cuda` fails where it has not."""
    has_cuda = CUDA in import_onnxruntime().get_available_providers()
    if wanted == "cuda" and not has_cuda:
        raise ConfigurationError("device cuda needs ONNX Runtime for GPUs: install medreward[gpu]")
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


def load_cuda(ort: ModuleType) -> str:
    """Loads the CUDA libraries that torch's packages bring, and returns what ONNX Runtime says of those it misses.

    They stand among Python's packages, where the system's loader does not look.
    """
    said = StringIO()
    with redirect_stdout(said):  # it prints
        ort.preload_dlls()
    return " ".join(said.getvalue().split())


def import_onnxruntime() -> ModuleType:
    """Returns the library; fails with a ConfigurationError that says what to install."""
    try:
        return import_module("onnxruntime")
    except ImportError:
        raise ConfigurationError("this model needs ONNX Runtime: install medreward[cpu] or medreward[gpu]") from None
