"""Families of tiles see each image in the tiles that their own processor makes of the original: pixels, ids, logits."""

import base64
import re
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from backends.torch_vlm.checkpoints import REFUSED, opened, write_checkpoint, write_manifest
from backends.torch_vlm.tiled import FAMILIES, WORDS, Theirs, write_tiled
from commands import serving
from medreward.artifacts.image_section import ImageOfTiles
from medreward.artifacts.manifest import read_manifest
from medreward.backends.base import Group, ModelImage
from medreward.backends.torch_vlm.reference import compare
from medreward.backends.torch_vlm.tiling import FENCE, Tiling, section_of
from medreward.encoding.image import ImageLimits, decode, probe
from medreward.encoding.tiles import Tiles
from medreward.engine.engine import Engine
from medreward.engine.queue.flights import Flight
from medreward.engine.queue.scheduler import Scheduler
from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.settings import Settings
from medreward.types import InlineImage, Item, Scored, ScoreRequest

# The processor of InternVL in transformers 5.17 hands tensors to NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

EXACT, SAME = 1e-4, 1e-5
LIMITS = ImageLimits(bytes=10**8, pixels=10**8, side=2**14, min_side=1, aspect=200)
SHAPES = {  # height and width
    "wide": (30, 120),
    "a strip": (12, 400),
    "tall": (130, 40),
    "square": (60, 60),
    "small": (10, 12),
    "large": (300, 280),
    "a page": (200, 141),
    "odd": (83, 57),
}
ASKED = "is there a fracture ?"
EACH = [pytest.param(name, marks=[REFUSED] if name in ("idefics3", "smolvlm") else []) for name in FAMILIES]


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def seen(sizes: Any, shape: str, is_alone: bool = True) -> ModelImage:
    """The image as a server's decoder makes it."""
    data = png(picture(*SHAPES[shape]))
    header = probe(data, LIMITS)
    spec = sizes.of(header.width, header.height, is_alone)
    return ModelImage(f"{shape} {is_alone}", decode(data, header, spec), cut=spec.cut)


@pytest.fixture(scope="module", params=EACH)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    folder: Path = tmp_path_factory.mktemp("tiled") / request.param
    write_tiled(folder, request.param)
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sizes(folder: Path) -> Tiles:
    sizes = read_manifest(folder / "model.toml").image.sizes
    assert isinstance(sizes, Tiles)
    return sizes


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Theirs:
    return Theirs(folder, folder.name)


def conversation(folder: Path, *images: ModelImage) -> Group:
    pieces = FAMILIES[folder.name].image
    prompt = [WORDS["<s>"], WORDS["<user>"], *(WORDS[piece] for _ in images for piece in pieces)]
    prompt += [WORDS[word] for word in ASKED.split()]
    answers = [[WORDS["<assistant>"], WORDS["no"], WORDS["</s>"]], [WORDS["<assistant>"], WORDS["</s>"]]]
    return Group(images[0] if images else None, prompt, answers, images[1:])


def texts(images: int) -> list[str]:
    return [f"<s><user>{'<image>' * images}{ASKED}<assistant>{said}</s>" for said in ("no", "")]


def test_one_image_of_any_shape_has_the_logits_of_the_original(folder: Path, sizes: Tiles, theirs: Theirs) -> None:
    groups = [conversation(folder, seen(sizes, shape)) for shape in SHAPES]
    backend = opened(folder)
    layouts = set()
    for shape, group, logits in zip(SHAPES, groups, backend.score(groups), strict=True):
        for text, row in zip(texts(1), logits, strict=True):
            expected, _ = theirs.logits(text, [picture(*SHAPES[shape])])
            assert np.abs(row - expected.numpy()).max() <= EXACT, shape
        assert group.image
        assert group.image.cut
        layouts.add((group.image.cut.rows, group.image.cut.columns))
    assert len(layouts) >= 3
    assert max(each.largest for each in compare(backend, groups)) <= EXACT


def test_two_images_of_different_layouts_have_the_logits_of_the_originals(
    folder: Path, sizes: Tiles, theirs: Theirs
) -> None:
    backend = opened(folder)
    pairs = [("wide", "tall"), ("tall", "wide"), ("small", "large")]
    groups = [conversation(folder, *(seen(sizes, shape, is_alone=False) for shape in pair)) for pair in pairs]
    found = backend.score(groups)
    for pair, logits in zip(pairs, found, strict=True):
        expected, _ = theirs.logits(texts(2)[0], [picture(*SHAPES[shape]) for shape in pair])
        assert np.abs(logits[0] - expected.numpy()).max() <= EXACT, pair
    assert np.abs(found[0] - found[1]).max() > 100 * EXACT
    assert max(each.largest for each in compare(backend, groups)) <= EXACT


def test_company_and_caches_change_nothing(folder: Path, sizes: Tiles) -> None:
    groups = [conversation(folder, seen(sizes, shape)) for shape in ("wide", "tall", "small", "large")]
    backend, uncached = opened(folder), opened(folder, feature_cache_bytes=0, prefix_cache_bytes=0)
    first, again = backend.score(groups), backend.score(groups)
    assert backend.take_counts().image_encodes == len(groups)
    for group, *others in zip(groups, first, again, uncached.score(groups[::-1])[::-1], strict=True):
        [alone] = uncached.score([group])
        assert max(float(np.abs(alone - other).max()) for other in others) <= SAME


def test_the_header_tells_how_many_tokens_an_image_is(folder: Path, sizes: Tiles, theirs: Theirs) -> None:
    text = texts(1)[0]
    without = len(theirs.processor.tokenizer(text, add_special_tokens=False).input_ids) - 1
    between = len(FAMILIES[folder.name].image) - 1
    largest = sizes.largest
    for height, width in SHAPES.values():
        _, ids = theirs.logits(text, [picture(height, width)])
        spec = sizes.of(width, height)
        assert spec.tokens == len(ids) - without - between
        assert spec.pixels <= largest.pixels
        assert spec.tokens <= largest.tokens


#: What the image processors of published checkpoints say, and the vision towers of their configs.
PUBLISHED: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "llava_next": (
        transformers.LlavaNextConfig,
        {},
        lambda: LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    ),
    "llava_onevision": (
        transformers.LlavaOnevisionConfig,
        {},
        lambda: LlavaOnevisionImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3),
    ),
    "internvl": (
        transformers.InternVLConfig,
        {},
        lambda: GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}),
    ),
    "idefics3": (
        transformers.Idefics3Config,
        {"vision_config": {"image_size": 364, "patch_size": 14}},
        lambda: Idefics3ImageProcessorPil(size={"longest_edge": 5 * 364}),
    ),
    "smolvlm": (
        transformers.SmolVLMConfig,
        {"vision_config": {"image_size": 512, "patch_size": 16}, "scale_factor": 4},
        lambda: SmolVLMImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}),
    ),
}


@pytest.mark.parametrize("family", PUBLISHED)
@pytest.mark.parametrize("size", [(1200, 301), (40, 61)])
def test_the_tiles_of_published_processors_are_the_same_to_the_bit(family: str, size: tuple[int, int]) -> None:
    made, given, image_processor = PUBLISHED[family]
    config, processor = made(image_token_id=1, **given), image_processor()
    section = ImageOfTiles.model_validate(section_of(config, processor))
    tokenizer: Any = SimpleNamespace(control_tokens={FENCE: 2})
    tiling = Tiling(section.sizes, SimpleNamespace(config=config), processor, tokenizer)
    pixels = picture(*size)
    patches = {"crop_to_patches": True} if family == "internvl" else {}  # as InternVL's processor asks for
    theirs = processor(images=[Image.fromarray(pixels)], return_tensors="pt", **patches)
    data = png(pixels)
    header = probe(data, LIMITS)
    spec = section.sizes.of(header.width, header.height)
    ours = tiling.inputs(ModelImage("", decode(data, header, spec), cut=spec.cut))
    for name in theirs.keys() - {"num_patches"}:
        assert torch.equal(ours[name], theirs[name].to(ours[name].dtype)), name
    assert spec.pixels <= section.sizes.pixels


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision", "internvl"])
def test_layouts_of_published_checkpoints_are_theirs_whatever_the_size(family: str) -> None:
    made, given, image_processor = PUBLISHED[family]
    config, processor = made(**given), image_processor()
    sizes = ImageOfTiles.model_validate(section_of(config, processor)).sizes
    kind = SimpleNamespace(image_processor=processor, patch_size=14, num_additional_image_tokens=0)
    kind.num_image_tokens, kind.vision_aspect_ratio = 729, "anyres_max_9"
    counting = transformers.LlavaOnevisionProcessor if family == "llava_onevision" else transformers.LlavaNextProcessor
    kind._get_unpadded_features = partial(counting._get_unpadded_features, kind)
    sides = [32, 99, 335, 336, 337, 511, 672, 1000, 1001, 2047, 4093, 16384]
    for height, width in product(sides, sides):
        spec = sizes.of(width, height)
        if family == "internvl":
            patches = processor.get_number_of_image_patches(height, width, {"crop_to_patches": True})
            assert spec.tokens == 256 * patches
        else:
            assert spec.tokens == counting._get_number_of_features(kind, height, width, sizes.tile, sizes.tile)
        assert spec.pixels <= sizes.pixels
        assert spec.tokens <= sizes.largest.tokens


SHOWN = [("wide",), ("wide", "tall"), ("tall",), ("tall", "wide")]


async def test_an_engine_admits_at_the_cost_of_the_tiles_and_scores_as_transformers_does(
    folder: Path, theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit, costs = Scheduler.admit, []

    def watched(self: Scheduler[Flight], cost: int, *rest: Any) -> None:
        costs.append(cost)
        admit(self, cost, *rest)

    monkeypatch.setattr(Scheduler, "admit", watched)
    sizes = read_manifest(folder / "model.toml").image.sizes
    engine = Engine(
        Settings(model=str(folder), isolation="inline", device="cpu", threads=1), Metrics(CollectorRegistry())
    )
    results: list[Any] = []
    try:
        await engine.start()
        for shapes in SHOWN:
            images = tuple(InlineImage(png(picture(*SHAPES[shape]))) for shape in shapes)
            results += (await engine.score(ScoreRequest("", (Item(ASKED, ("no",), images),)))).results
    finally:
        await engine.close()
    text = 2 + len(ASKED.split()) + 3
    for shapes, cost, result in zip(SHOWN, costs, results, strict=True):
        expected, _ = theirs.logits(texts(len(shapes))[0], [picture(*SHAPES[shape]) for shape in shapes])
        assert isinstance(result, Scored)
        assert np.abs(np.array(result.logits) - expected.mean(0).numpy()).max() <= EXACT, shapes
        specs = [sizes.of(*SHAPES[shape][::-1], len(shapes) == 1) for shape in shapes]
        pieces = len(FAMILIES[folder.name].image) * len(shapes)
        assert cost == text + pieces + sum(spec.tokens for spec in specs)


def test_rest_gives_the_logits_of_the_original_files(tmp_path: Path) -> None:
    """One image, the same beside another, and the other alone: each is seen in its own layout."""
    folder = tmp_path / "llava_onevision"
    write_tiled(folder, folder.name)
    theirs = Theirs(folder, folder.name)
    files = {shape: base64.b64encode(png(picture(*SHAPES[shape]))).decode() for shape in ("wide", "tall")}
    items = [{"images": [files[shape] for shape in shapes], "question": ASKED, "response": "no"} for shapes in SHOWN]
    with serving(tmp_path, "--model", str(folder), "--device", "cpu", "--threads", "1") as served:
        reply = httpx.post(f"{served.url}/v1/score", json={"items": items}, timeout=120).json()
    for shapes, result in zip(SHOWN, reply["results"], strict=True):
        expected, _ = theirs.logits(texts(len(shapes))[0], [picture(*SHAPES[shape]) for shape in shapes])
        found = np.array([*result["logits"].values()])
        assert np.abs(found - expected.mean(0).numpy()).max() <= EXACT, shapes


@pytest.mark.parametrize(
    ("changed", "into", "says"),
    [
        ('rule = "llava_next"', 'rule = "idefics3"', "needs longest, and no other bounds"),
        ("tile = 28", "tile = 56", "tile of \\[image\\] must be 28"),
        ("tokens = 16", "tokens = 9", "check tokens of \\[image\\]"),
        ("tokens = 16", "tokens = 15", "tokens that fill a square"),
        ('image = ["<image>"]', 'image = ["<image>", "<image>"]', "2 placeholders"),
    ],
)
def test_a_manifest_that_is_not_the_checkpoints_is_refused(tmp_path: Path, changed: str, into: str, says: str) -> None:
    write_tiled(tmp_path, "llava_next")
    path = tmp_path / "model.toml"
    text = path.read_text()
    assert changed in text
    path.write_text(text.replace(changed, into))
    with pytest.raises(ConfigurationError, match=says):
        opened(tmp_path)


def test_a_family_without_tiles_takes_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "llava")
    write_manifest(
        tmp_path, "llava", size='fit = "tiles"\nrule = "internvl"\ntile = 28\ntokens = 4\nmin_tiles = 1\nmax_tiles = 6'
    )
    with pytest.raises(ConfigurationError, match="llava takes no tiles by rule internvl"):
        opened(tmp_path)


def test_fewer_grids_than_the_checkpoint_has_are_a_bound(tmp_path: Path) -> None:
    """The reference is transformers with the same bound."""
    write_tiled(tmp_path, "llava_next")
    path, bound = tmp_path / "model.toml", [[1, 2], [2, 1]]
    path.write_text(re.sub("grids = .*", f"grids = {bound}", path.read_text()))
    sizes = read_manifest(path).image.sizes
    image = seen(sizes, "large")
    folder = tmp_path.with_name("llava_next")
    theirs = Theirs(tmp_path, "llava_next")
    pinpoints = [[28, 56], [56, 28]]
    theirs.model.config.image_grid_pinpoints = theirs.processor.image_processor.image_grid_pinpoints = pinpoints
    [logits] = opened(tmp_path).score([conversation(folder, image)])
    expected, _ = theirs.logits(texts(1)[0], [picture(*SHAPES["large"])])
    assert np.abs(logits[0] - expected.numpy()).max() <= EXACT
