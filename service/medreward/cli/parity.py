"""`medreward doctor --parity`: does a VLM give here what it gives in transformers itself?"""

from typing import Any

from medreward.backends.base import Group, ModelImage
from medreward.cli.show import print_json, print_table
from medreward.encoding.image import ImageLimits, decode, probe
from medreward.engine.limits import image_limits
from medreward.engine.model import Model, open_model
from medreward.errors import ConfigurationError
from medreward.phantoms.golden import golden_images
from medreward.settings import Settings
from medreward.types import Options
from medreward.workers.loading import open_vlm

PHANTOMS = 4
KINDS = ("right_full_insightful", "wrong_full", "refusal", "terse", "wandering", "hedge")


def check_parity(settings: Settings, as_json: bool) -> int:
    model = open_model(settings)
    manifest = model.manifest
    if manifest.runtime != "torch_vlm":
        raise ConfigurationError(f"--parity is for models of runtime torch_vlm; {manifest.name} is {manifest.runtime}")
    if settings.tensor_parallel > 1:
        raise ConfigurationError("--parity compares on one device: leave tensor parallelism at 1")
    assert model.folder is not None
    no_caches = {"feature_cache_bytes": 0, "prefix_cache_bytes": 0}
    backend = open_vlm(settings.model_copy(update=no_caches), manifest, model.folder)
    from medreward.backends.torch_vlm.parity import compared, orders, spread, tolerance  # loads torch

    named = _groups(model, image_limits(settings))
    both = compared(backend, [*named.values()])
    found = {name: each.largest for name, each in zip(named, both, strict=True)}
    order, allowed = orders(both), tolerance(backend.backbone.dtype, both)
    facts: dict[str, Any] = {
        "model": manifest.name,
        "runtime": backend.runtime,
        "tolerance": allowed,
        "ok": max(found.values()) <= allowed,
        "spread": spread(both),
        "pair_orders": order.pairs,
        "pair_orders_that_flip": order.flips,
        "share_that_flips": order.share,
    }
    if as_json:
        print_json({**facts, "largest": max(found.values()), "differences": found})
    else:
        print_table(["triples about", "largest difference of a logit"], [[k, f"{v:.1e}"] for k, v in found.items()])
        print_table(["fact", "value"], [[k.replace("_", " "), _written(v)] for k, v in facts.items()])
    return int(not facts["ok"])


def _written(fact: object) -> str:
    return f"{fact:.2g}" if isinstance(fact, float) else str(fact)


def _groups(model: Model, limits: ImageLimits) -> dict[str, Group]:
    """Phantoms with a question and answers to it; the last is asked without its image, where the model allows that."""
    groups: dict[str, Group] = {}
    for golden in golden_images(PHANTOMS, KINDS):
        header = probe(golden.png, limits)
        pixels = decode(golden.png, header, model.image.of(header.width, header.height))
        groups[golden.name] = _group(model, golden.question.text, golden.answers, ModelImage(golden.name, pixels))
    if not model.manifest.image.required:
        groups["no image"] = _group(model, golden.question.text, golden.answers, None)
    return groups


def _group(model: Model, question: str, answers: Any, image: ModelImage | None) -> Group:
    prompt = model.text.prompt(question, has_image=image is not None)
    return Group(image, prompt.ids, [model.text.answer(prompt, answer.text, Options()).ids for answer in answers])
