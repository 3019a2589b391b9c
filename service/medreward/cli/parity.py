"""`medreward doctor --parity`: whether a VLM gives here what it gives in transformers itself."""

from contextlib import suppress
from typing import Any

from medreward.backends.base import Group, ModelImage
from medreward.cli.show import print_json, print_table
from medreward.encoding.image import ImageLimits, decode, probe
from medreward.engine.limits import image_limits
from medreward.engine.model import Model, open_model
from medreward.errors import ConfigurationError, ItemError
from medreward.lab.phantoms.golden import Golden, golden_images
from medreward.settings import Settings
from medreward.types import Options, TooLong
from medreward.workers.device.loading import open_vlm

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
    backend = open_vlm(settings.model_copy(update=no_caches), manifest, model.folder)
    from medreward.backends.torch_vlm.reference import compare, orders, spread, tolerance  # loads torch

    groups = phantom_groups(model, image_limits(settings))
    both = compare(backend, [*groups.values()])
    differences = {name: each.largest for name, each in zip(groups, both, strict=True)}
    order, allowed = orders(both), tolerance(backend.backbone.dtype, both)
    facts: dict[str, Any] = {
        "model": manifest.name,
        "runtime": str(backend.runtime),
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


def phantom_groups(model: Model, limits: ImageLimits) -> dict[str, Group]:
    """Returns phantoms with a question and answers to it; the last without its image, where the model allows that.

    An answer that is too long for the model is cut as `cut_middle` cuts it: both ways get the same ids. A phantom whose
    question alone is too long is left out; fails where that leaves nothing.
    """
    groups: dict[str, Group] = {}
    last: Golden | None = None
    for golden in golden_images(PHANTOMS, KINDS):
        header = probe(golden.png, limits)
        pixels = decode(golden.png, header, model.image.of(header.width, header.height))
        with suppress(ItemError):
            groups[golden.name] = _group(model, golden, ModelImage(golden.name, pixels))
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
