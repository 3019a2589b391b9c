"""Scores a VLM with vLLM's engine, in a process of an environment that has it.

vLLM gets token ids and pixels, as every backend does, and gives the last hidden state of each answer; our own heads
make logits of them. It shares the beginnings of sequences by itself, in blocks, and keeps them for later batches.
"""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

# Read when vLLM is imported: an engine in this process ends with it, and leaves its threads where we set them.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig
from vllm import EngineArgs, LLMEngine, PoolingParams
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.platforms import current_platform

from medreward.artifacts.image_section import Image as OneSize
from medreward.artifacts.image_section import ImageOfOwnSize, ImageOfTiles
from medreward.artifacts.manifest import Manifest
from medreward.artifacts.repository import transformers_files
from medreward.backends.base import CostModel, Counts, DeviceBroken, Group, Logits, ModelImage
from medreward.backends.torch_vlm.heads import SCORE, TrainedHeads
from medreward.cores import available_cores
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.types import Runtime

logging.getLogger("vllm").setLevel(logging.ERROR)  # what it warns of is speed

FAMILIES: Final = ("qwen2_5_vl",)  # whose logits were compared with transformers'
DTYPES: Final = {"fp32": "float32", "bf16": "bfloat16"}
AUTO: Final = {"cpu": "fp32", "cuda": "bf16"}
STEP_TOKENS: Final = 8192  # that the engine runs at once
BLOCK_TOKENS: Final = 32  # of a beginning that is shared; what is left over of it runs for each answer
GIB: Final = 1024**3
HEADLESS: Final = "medreward"  # how vLLM knows our way to read a checkpoint
LAST_STATE: Final = PoolingParams(task="embed", use_activation=False)
ADAPTER: Final = "adapter_config.json"


class VllmBackend:
    """Scores with an engine of vLLM and heads of ours."""

    def __init__(
        self, engine: LLMEngine, heads: TrainedHeads, runtime: Runtime, cost: CostModel, largest: Group
    ) -> None:
        """`largest` is a triple about the largest image."""
        self._engine = engine
        self._heads = heads
        self._largest = largest
        self.runtime: Final = runtime
        self.cost: Final = cost
        self._counts = Counts()
        self._numbers = count()

    @torch.inference_mode()
    def score(self, groups: Sequence[Group]) -> list[Logits]:
        prompts = [prompt for group in groups for prompt in self._prompts(group)]
        with self._counts.timed("answers"):
            ends = self._run(prompts)
        logits, place = [], 0
        for group in groups:
            own = ends[place : place + len(group.answers)]
            place += len(own)
            self._count(group, own[0].num_cached_tokens if own else 0)
            hidden = [torch.as_tensor(end.outputs.data).float() for end in own]
            logits.append(self._heads(torch.stack(hidden)[:, None]).cpu().numpy())
        return logits

    def warm_up(self) -> None:
        self.score([self._largest, Group(None, [0, 0], [[0]])])

    def release(self) -> None:
        """Forgets the states of earlier batches. Fails with DeviceBroken where some are still in use."""
        if not self._engine.reset_prefix_cache():
            raise DeviceBroken("vLLM holds states of requests that have ended")

    def rest(self) -> None:
        """Forgets what is kept. Fails with a ConfigurationError on a GPU, whose memory vLLM would not give back."""
        if self.runtime.device != "cpu":
            raise ConfigurationError("vLLM keeps its GPU's memory: sleep with level 2, which ends its process")
        self.release()

    def resume(self) -> None:
        """Does nothing: the weights never left."""

    def take_counts(self) -> Counts:
        counts, self._counts = self._counts, Counts()
        return counts

    def _prompts(self, group: Group) -> Iterator[dict[str, Any]]:
        """Yields what vLLM is asked for each answer: ids and pixels, and never a text.

        The salt keeps what is kept of a tenant from others. Text alone does not say whose it is, so each such group has
        a salt of its own.
        """
        images = group.images
        about: dict[str, Any] = {"cache_salt": f"image/{images[0].tenant}" if images else f"text/{next(self._numbers)}"}
        if images:
            about |= {"multi_modal_data": {"image": [Image.fromarray(image.pixels) for image in images]}}
            about |= {"multi_modal_uuids": {"image": [image.key for image in images]}}
        for answer in group.answers:
            yield {"prompt_token_ids": [*group.prompt, *answer], **about}

    def _run(self, prompts: Sequence[dict[str, Any]]) -> list[Any]:
        """Returns vLLM's outputs, in order. Fails with what it says of a prompt, or with DeviceBroken."""
        own = [str(next(self._numbers)) for _ in prompts]
        added = []
        try:
            for name, prompt in zip(own, prompts, strict=True):
                added.append(self._engine.add_request(name, prompt, LAST_STATE))
        except Exception:
            self._engine.abort_request(added, internal=True)
            raise
        done: dict[str, Any] = {}
        try:
            while self._engine.has_unfinished_requests():
                done |= {output.request_id: output for output in self._engine.step() if output.finished}
        except Exception as error:  # states may be noted as kept that were never computed
            raise DeviceBroken(f"vLLM failed over a batch: {error}") from error
        return [done[name] for name in own]

    def _count(self, group: Group, cached: int) -> None:
        """Notes what the group cost. vLLM does not say which images it had features of: those of a prompt that it ran
        count as encoded.
        """
        if cached:
            self._counts.prefix_hits += 1
            self._counts.image_hits += len(group.images)
        else:
            self._counts.prefix_runs += 1
            self._counts.image_encodes += len(group.images)


@register_model_loader(HEADLESS)
class HeadlessLoader(DefaultModelLoader):
    """Reads a checkpoint without its heads, and starts nothing with a weight that its files do not have."""

    def __init__(self, load_config: Any) -> None:
        load_config.load_format = "safetensors"
        super().__init__(load_config)

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        weights = super().get_all_weights(model_config, model)
        return ((name, weight) for name, weight in weights if not name.startswith(SCORE))

    def track_weights_loading(self, model: Any, loaded: set[str] | None, quantized: bool = False) -> None:
        missing = {name for name, _ in model.named_parameters()} - (loaded or set())
        if missing and not quantized:
            raise ConfigurationError(f"the checkpoint has no {', '.join(sorted(missing)[:3])}")


def open_vllm(folder: Path, manifest: Manifest, settings: Settings) -> VllmBackend:
    """Returns the backend of the checkpoint in the folder.

    Fails with a ConfigurationError for a checkpoint that is not whole or not as its manifest says, and for settings
    that vLLM cannot keep.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    _refuse(folder, manifest, settings, config)
    assert manifest.vlm
    assert manifest.vlm.head
    device = current_platform.device_type
    dtype = AUTO[device] if settings.dtype == "auto" else settings.dtype
    image, pixels = _image_cost(manifest, config)
    threads = settings.threads or available_cores()
    torch.set_num_threads(threads)
    width = config.get_text_config().hidden_size
    heads = TrainedHeads(folder / manifest.vlm.head, width, len(manifest.dimensions), torch.device("cpu"))
    cost = CostModel(image=0 if pixels else image, pixels=pixels, shares_prompt=True)
    blank = ModelImage("", np.zeros((*_largest(manifest.image), 3), np.uint8))
    largest = Group(blank, [config.image_token_id, 0], [[0]])
    with _checkpoint_alone(folder, manifest.vlm.head) as backbone:
        engine = _engine(backbone, manifest, settings, config, DTYPES[dtype], image)
        backend = VllmBackend(engine, heads, Runtime("vllm", device, dtype), cost, largest)
        backend.warm_up()  # vLLM reads some files when it sees its first image
    return backend


def _refuse(folder: Path, manifest: Manifest, settings: Settings, config: Any) -> None:
    """Fails with a ConfigurationError for what this backend cannot run as it is asked."""
    unlisted = sorted({path.name for path in transformers_files(folder)} - manifest.files.keys())
    if unlisted:
        raise ConfigurationError(f"{folder} has files that model.toml gives no digest for: {', '.join(unlisted[:5])}")
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigurationError(f"--backend vllm runs {known}, and {manifest.name} is {config.model_type}")
    if manifest.vlm is None or manifest.vlm.head is None:
        raise ConfigurationError(f"--backend vllm needs a trained head, and {manifest.name} has a verbaliser")
    if isinstance(manifest.image, ImageOfTiles):
        raise ConfigurationError("--backend vllm cuts no images into tiles: [image] needs another fit")
    if manifest.experts:
        raise ConfigurationError(f"--backend vllm takes no experts, and {manifest.name} has some")
    if (folder / ADAPTER).exists():
        raise ConfigurationError(f"--backend vllm merges no adapter: save {manifest.name} with its adapter merged")
    if settings.deterministic or settings.tensor_parallel > 1:
        raise ConfigurationError("--backend vllm has neither --deterministic nor --tensor-parallel")
    if settings.device not in ("auto", current_platform.device_type):
        raise ConfigurationError(
            f"this vLLM was built for {current_platform.device_type}, and --device asks for {settings.device}"
        )


def _largest(image: OneSize | ImageOfOwnSize | ImageOfTiles) -> tuple[int, int]:
    """Returns height and width of the largest image, or of the largest square."""
    if not isinstance(image, ImageOfOwnSize):
        every = image.sizes.of(1, 1)  # tiles were refused
        return every.height, every.width
    side = math.isqrt(image.max_pixels) // image.multiple * image.multiple
    return side, side


def _image_cost(manifest: Manifest, config: Any) -> tuple[int, int]:
    """Returns the tokens of the largest image, and the pixels of a token where images differ in size, else 0."""
    side = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    image = manifest.image
    if not isinstance(image, ImageOfOwnSize):
        return image.sizes.pixels // side**2, 0
    if image.multiple != side:
        raise ConfigurationError(
            f"{side} x {side} pixels are a token to this model: multiple of [image] must be {side}"
        )
    return image.max_pixels // side**2, side**2


def _engine(folder: Path, manifest: Manifest, settings: Settings, config: Any, dtype: str, image: int) -> LLMEngine:
    """Returns an engine that has loaded the checkpoint. Fails with a ConfigurationError that quotes vLLM."""
    text = config.get_text_config()
    longest = min(manifest.text.max_tokens + image * settings.item_images, text.max_position_embeddings)
    at_once = max(min(settings.batch_cost, STEP_TOKENS), image)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = 2 * text.num_hidden_layers * text.num_key_value_heads * head * getattr(torch, dtype).itemsize
    room = settings.prefix_cache_bytes + token * 2 * (max(longest, settings.batch_cost) + BLOCK_TOKENS)
    bounds = manifest.image
    size = (bounds.min_pixels, bounds.max_pixels) if isinstance(bounds, ImageOfOwnSize) else ()
    given = {"min_pixels": size[0], "max_pixels": size[1]} if size else {}
    args = EngineArgs(
        model=str(folder),
        runner="pooling",
        convert="embed",
        dtype=dtype,
        load_format=HEADLESS,
        trust_remote_code=False,
        max_model_len=longest,
        max_num_batched_tokens=at_once,
        enable_prefix_caching=True,
        block_size=BLOCK_TOKENS,
        kv_cache_memory_bytes=room,
        limit_mm_per_prompt={"image": settings.item_images, "video": 0},
        mm_processor_cache_gb=settings.feature_cache_bytes / GIB,
        mm_processor_kwargs=given or None,
        enforce_eager=True,
        disable_log_stats=True,
        use_tqdm_on_load=False,
    )
    try:
        return LLMEngine.from_engine_args(args)
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        raise ConfigurationError(f"vLLM cannot load {manifest.name}: {error}") from error


@contextmanager
def _checkpoint_alone(folder: Path, head: str) -> Iterator[Path]:
    """Yields a folder with the checkpoint alone: vLLM would take each file of weights for a part of the model."""
    with TemporaryDirectory() as name:
        for path in transformers_files(folder):
            if path.name != head or _holds_more(path):
                (Path(name) / path.name).symlink_to(path.absolute())
        yield Path(name)


def _holds_more(path: Path) -> bool:
    """Returns whether the file of a head holds the backbone too, as that of a classifier does."""
    with safe_open(path, "pt") as file:
        return any(name.startswith(("model.", "visual.")) for name in file.keys())  # noqa: SIM118  # not a dict
