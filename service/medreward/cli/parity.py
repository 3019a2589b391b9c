"""`medreward doctor --parity`: whether a VLM gives here what it gives in transformers itself."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from medreward.backends.base import Group, HeadOutputs, Logits, ModelImage
from medreward.cli.show import print_json, print_table
from medreward.encoding.image import ImageLimits, decode, probe
from medreward.engine.limits import image_limits
from medreward.engine.model import Model, open_model
from medreward.errors import ConfigurationError, ItemError
from medreward.lab.phantoms.golden import Golden, golden_images
from medreward.settings import Settings
from medreward.types import Options, Runtime, TooLong
from medreward.workers.device.loading import open_vlm
from medreward.workers.device.process_worker import ProcessWorker
from medreward.workers.device.worker import WorkerLost
from medreward.workers.frames import GroupFrame, ImageFrame
from medreward.workers.memory import PixelMemory, Place, anonymous_memory

PHANTOMS = 4
KINDS = ("right_full_insightful", "wrong_full", "refusal", "terse", "wandering", "hedge")


def check_parity(settings: Settings, as_json: bool) -> int:
    """Prints how far logits differ and returns the exit code: 1 where one differs by more than is allowed."""
    model = open_model(settings)
    manifest = model.manifest
    if manifest.runtime != "torch_vlm":
        raise ConfigurationError(
            f"--parity compares models of runtime torch_vlm, and {manifest.name} is {manifest.runtime}"
        )
    if settings.tensor_parallel > 1:
        raise ConfigurationError("--parity compares on one device; set --tensor-parallel to 1")
    assert model.folder is not None
    no_caches = {"feature_cache_bytes": 0, "prefix_cache_bytes": 0}
    settings = settings.model_copy(update=no_caches)
    backend = open_vlm(settings, manifest, model.folder)
    from medreward.backends.torch_vlm.reference import Compared, compare, orders, spread, tolerance  # loads torch

    groups = phantom_groups(model, image_limits(settings))
    both = compare(backend, [*groups.values()])
    runtime = backend.runtime
    if settings.worker_python or settings.backend == "vllm":
        logits, runtime = asyncio.run(scores_elsewhere(settings, model, [*groups.values()]))
        both = [Compared(ours, each.plain) for ours, each in zip(logits, both, strict=True)]
    differences = {name: each.largest for name, each in zip(groups, both, strict=True)}
    order, allowed = orders(both), tolerance(backend.backbone.dtype, both)
    facts: dict[str, Any] = {
        "model": manifest.name,
        "runtime": str(runtime),
        "tolerance": allowed,
        "ok": max(differences.values()) <= allowed,
        "spread": spread(both),
        "pair_orders": order.pairs,
        "pair_orders_that_flip": order.flips,
        "share_that_flips": order.share,
    }
    if as_json:
        print_json({**facts, "largest": max(differences.values()), "differences": differences})
    else:
        rows = [[name, f"{largest:.1e}"] for name, largest in differences.items()]
        print_table(["triples about", "largest difference of a logit"], rows)
        texts = {name: f"{fact:.2g}" if isinstance(fact, float) else str(fact) for name, fact in facts.items()}
        print_table(["fact", "value"], [[name.replace("_", " "), text] for name, text in texts.items()])
    return int(not facts["ok"])


async def scores_elsewhere(settings: Settings, model: Model, groups: Sequence[Group]) -> tuple[list[Logits], Runtime]:
    """Returns the logits that a worker of another interpreter gives, and its runtime. Fails with a ConfigurationError
    where it does not start, or cannot score a group.
    """
    sizes = [sum(image.pixels.nbytes for image in group.images) for group in groups]
    fd = anonymous_memory(max(1, sum(sizes)))
    memory, frames, start = PixelMemory(fd), [], 0
    for group in groups:
        images = []
        for image in group.images:
            place = Place(start, *image.pixels.shape[:2])
            memory.pixels(place)[:] = image.pixels
            images.append(ImageFrame(place, image.digest, "", image.cut))
            start += place.size
        frames.append(GroupFrame(images, group.prompt, group.answers))
    worker = ProcessWorker(settings, model.manifest, model.folder, fd, lambda _: None, verified_at=model.verified_at)
    try:
        await worker.start()
        done = await worker.score(frames)
        return [_logits(outcomes) for outcomes in done.outcomes], worker.runtime
    except WorkerLost as error:
        raise ConfigurationError(f"the worker was lost over the phantoms ({error})") from error
    finally:
        await worker.close()
        os.close(fd)


def _logits(outcomes: Sequence[HeadOutputs | ItemError]) -> Logits:
    for outcome in outcomes:
        if isinstance(outcome, ItemError):
            raise ConfigurationError(f"a phantom could not be scored: {outcome.detail}")
    return np.stack([outcome for outcome in outcomes if not isinstance(outcome, ItemError)])


def phantom_groups(model: Model, limits: ImageLimits) -> dict[str, Group]:
    """Returns phantoms with a question and answers to it; the last without its image, where the model allows that.

    An answer that is too long for the model is cut as `cut_middle` cuts it: both ways get the same ids. A phantom whose
    question alone is too long is left out; fails where that leaves nothing.
    """
    groups: dict[str, Group] = {}
    last: Golden | None = None
    for golden in golden_images(PHANTOMS, KINDS):
        header = probe(golden.png, limits)
        spec = model.image.of(header.width, header.height)
        pixels = decode(golden.png, header, spec)
        with suppress(ItemError):
            groups[golden.name] = _group(model, golden, ModelImage(golden.name, pixels, cut=spec.cut))
            last = golden
    if last is None:
        raise ConfigurationError(
            f"{model.manifest.name} takes {model.manifest.text.max_tokens} tokens, too few for any question of ours: "
            "nothing can be compared"
        )
    if not model.manifest.image.required:
        groups["no image"] = _group(model, last, None)
    return groups


def _group(model: Model, golden: Golden, image: ModelImage | None) -> Group:
    prompt = model.text.prompt(golden.question.text, has_image=image is not None)
    cut = Options(too_long=TooLong.CUT_MIDDLE)
    return Group(image, prompt.ids, [model.text.answer(prompt, answer.text, cut).ids for answer in golden.answers])
