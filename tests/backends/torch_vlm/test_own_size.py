"""Families that take images of any size see each at its own: pixels and logits are those of the original file."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from backends.torch_vlm.checkpoints import BETWEEN, TOKENS, Plain, opened, write_checkpoint, write_manifest
from commands import serving
from medreward.artifacts.manifest import read_manifest
from medreward.backends.base import Group, ModelImage
from medreward.backends.torch_vlm.reference import compare
from medreward.encoding.image import ImageLimits, decode, probe
from medreward.encoding.sizes import OwnSize
from medreward.engine.engine import Engine
from medreward.engine.queue.flights import Flight
from medreward.engine.queue.scheduler import Scheduler
from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import InlineImage, Item, ScoreRequest

EXACT, SAME = 1e-4, 1e-5
LIMITS = ImageLimits(bytes=10**8, pixels=10**8, side=2**14, min_side=1, aspect=32)
SIZES = OwnSize(min_pixels=28 * 28, max_pixels=84 * 84, multiple=14)
OWN = 'fit = "own"\nmin_pixels = 784\nmax_pixels = 7056\nmultiple = 14'
SEEN = {  # height and width: as the model sees them
    (9, 9): (28, 28),
    (40, 50): (42, 56),
    (56, 28): (56, 28),
    (83, 84): (84, 84),
    (8, 100): (14, 98),
    (300, 170): (98, 56),
}
ASKED = "is there a fracture ?"
QUESTION = [TOKENS[word] for word in ASKED.split()]


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def seen(pixels: NDArray[np.uint8], sizes: OwnSize) -> NDArray[np.uint8]:
    data = png(pixels)
    header = probe(data, LIMITS)
    return decode(data, header, sizes.of(header.width, header.height))


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("size", [(40, 60), (448, 448), (479, 641), (1200, 300), (33, 900), (1100, 1400)])
def test_pixels_are_those_of_the_processor(size: tuple[int, int], patch: int) -> None:
    """Of Qwen2.5-VL and of Qwen3-VL; what it is given it then leaves as it is."""
    bounds = {"min_pixels": 256 * 256, "max_pixels": 600 * 700}
    processor = Qwen2VLImageProcessorPil(patch_size=patch, **bounds)
    for pixels in (picture(*size), picture(*size)[:, :, 0]):
        original = processor(images=Image.fromarray(pixels).convert("RGB"), return_tensors="np")
        ours = Image.fromarray(seen(pixels, OwnSize(**bounds, multiple=2 * patch)))
        for resizes in (True, False):
            again = processor(images=ours, return_tensors="np", do_resize=resizes)
            assert again["image_grid_thw"].tolist() == original["image_grid_thw"].tolist()
            assert np.array_equal(again["pixel_values"], original["pixel_values"])


@pytest.mark.parametrize(("least", "most", "multiple"), [(3136, 1003520, 28), (65536, 1310720, 32), (784, 7056, 14)])
def test_every_size_is_the_processors_but_of_strips_beyond_the_bound(least: int, most: int, multiple: int) -> None:
    sizes = OwnSize(least, most, multiple)
    sides = [1, 8, 13, 14, 15, 27, 28, 42, 50, 98, 99, 256, 333, 448, 511, 700, 1000, 1001, 1002, 4093, 16384]
    bounded = 0
    for height in sides:
        for width in sides:
            ours = sizes.of(width, height)
            assert 0 < ours.pixels <= most
            assert ours.width % multiple == ours.height % multiple == 0
            if max(height, width) > 200 * min(height, width):  # refused by the processor, and by our limits before
                continue
            theirs = smart_resize(height, width, multiple, least, most)
            if theirs[0] * theirs[1] <= most:
                assert (ours.height, ours.width) == theirs
            else:
                assert min(ours.height, ours.width) == multiple
                bounded += 1
    assert bounded == 0 or most < 10_000


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp(request.param)
    written(folder, request.param)
    yield folder
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def written(folder: Path, family: str, size: str = OWN) -> None:
    write_checkpoint(folder, family)
    processor().save_pretrained(folder)
    write_manifest(folder, family, size=size)


def processor() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(patch_size=7, min_pixels=SIZES.min_pixels, max_pixels=SIZES.max_pixels)


def plain(folder: Path) -> Plain:
    found = Plain(folder, read_manifest(folder / "model.toml").name.removeprefix("tiny-").replace("-", "_"))
    found.image_processor = processor()
    return found


def groups() -> list[Group]:
    """A question about each size, another about one of them, one about no image."""
    images = [ModelImage(str(size), seen(picture(*size), SIZES)) for size in SEEN]
    begin = [TOKENS["<s>"], *(TOKENS[piece] for piece in BETWEEN)]
    asked = [Group(image, [*begin, *QUESTION[: 2 + n]], [[20, 21], [22] * (3 + n)]) for n, image in enumerate(images)]
    return [*asked, Group(images[0], [*begin, 30], [[20]]), Group(None, [begin[0], *QUESTION], [[20]])]


def test_images_of_many_sizes_in_one_batch_have_the_logits_of_their_original_files(folder: Path) -> None:
    asked = groups()
    assert [group.image.pixels.shape[:2] for group in asked[: len(SEEN)] if group.image] == [*SEEN.values()]
    reference = plain(folder)
    originals = [*(picture(*size) for size in SEEN), picture(*next(iter(SEEN))), None]
    for group, original, logits in zip(asked, originals, opened(folder).score(asked), strict=True):
        for answer, row in zip(group.answers, logits, strict=True):
            assert np.abs(row - reference.logits(original, group.prompt, answer).numpy()).max() <= EXACT


def test_company_and_caches_change_nothing(folder: Path) -> None:
    asked = groups()
    for deterministic, bound in ((False, SAME), (True, 0.0)):
        backend = opened(folder, deterministic=deterministic)
        uncached = opened(folder, deterministic=deterministic, feature_cache_bytes=0, prefix_cache_bytes=0)
        first, again = backend.score(asked), backend.score(asked)
        turned = uncached.score(asked[::-1])[::-1]
        for group, *others in zip(asked, first, again, turned, strict=True):
            [alone] = uncached.score([group])
            assert max(float(np.abs(alone - other).max()) for other in others) <= bound


def test_the_whole_sequences_of_parity_are_of_the_same_sizes(folder: Path) -> None:
    assert max(each.largest for each in compare(opened(folder), groups())) <= EXACT


def test_an_image_costs_its_own_tokens(folder: Path) -> None:
    cost = opened(folder).cost
    tokens = [cost.group(prompt=10, pixels=height * width) - 10 for height, width in SEEN.values()]
    assert tokens == [4, 12, 8, 36, 7, 28]
    assert cost.group(prompt=10, pixels=0) == 10


async def test_a_request_is_admitted_at_the_cost_of_its_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admit, costs = Scheduler.admit, []

    def watched(self: Scheduler[Flight], cost: int, *rest: Any) -> None:
        costs.append(cost)
        admit(self, cost, *rest)

    monkeypatch.setattr(Scheduler, "admit", watched)
    settings = Settings(model=str(folder), isolation="inline", device="cpu", threads=1)
    engine = Engine(settings, Metrics(CollectorRegistry()))
    try:
        await engine.start()
        for size in ((9, 9), (83, 84)):
            item = Item(ASKED, ("no", "yes"), (InlineImage(png(picture(*size))),))
            await engine.score(ScoreRequest("", (item,)))
    finally:
        await engine.close()
    text = len(QUESTION) + 5 + 2 * 3
    assert costs == [4 + text, 36 + text]


@pytest.mark.parametrize(
    ("family", "size", "says"),
    [
        ("llava", OWN, "llava takes no images of any size"),
        ("qwen3_vl", OWN.replace("multiple = 14", "multiple = 28"), "multiple of \\[image\\] must be 14"),
    ],
)
def test_a_model_that_cannot_have_it_is_not_loaded(tmp_path: Path, family: str, size: str, says: str) -> None:
    write_checkpoint(tmp_path, family)
    write_manifest(tmp_path, family, size=size)
    with pytest.raises(ConfigurationError, match=says):
        opened(tmp_path)


def test_rest_gives_the_logits_of_the_original_files_whatever_their_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    written(folder, "qwen2_5_vl")
    sizes = [*SEEN, (8, 8000)]  # a strip that would be 571 tokens, and is 36
    files = [base64.b64encode(png(picture(*size))).decode() for size in sizes]
    body = {"items": [{"image": file, "question": ASKED, "response": "no"} for file in files]}
    options = ["--device", "cpu", "--threads", "1", "--image-aspect", "1000"]
    with serving(tmp_path, "--model", str(folder), *options) as served:
        results = httpx.post(f"{served.url}/v1/score", json=body, timeout=120).json()["results"]
    assert [result["status"] for result in results] == ["ok"] * len(sizes)
    reference = plain(folder)
    prompt = [TOKENS[word] for word in ("<s>", "<user>", *BETWEEN)] + QUESTION
    answer = [TOKENS[word] for word in ("<assistant>", "no", "</s>")]
    for size, result in zip(sizes[:-1], results, strict=False):
        expected = reference.logits(picture(*size), prompt, answer).mean(0).numpy()
        assert np.abs(np.array([*result["logits"].values()]) - expected).max() <= EXACT
