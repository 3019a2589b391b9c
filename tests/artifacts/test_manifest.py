import re
from pathlib import Path

import pytest

from medreward.artifacts.manifest import Manifest, read_manifest
from medreward.errors import ConfigurationError
from tiny_model import manifest as manifest_text

DIGESTS = {
    name: f"{index:064x}" for index, name in enumerate(["image.onnx", "score.onnx", "tokenizer.json", "card.md"])
}
TEXT = manifest_text(DIGESTS)
VIEWPOINT = """[viewpoints.safety]
title = "Safety first"
source = "a made-up guideline"
weights = { accuracy = 2.0 }

"""


def read(folder: Path, text: str) -> Manifest:
    path = folder / "model.toml"
    path.write_text(text)
    return read_manifest(path)


def replaced(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (DIGESTS["image.onnx"], "f" * 64),
        (DIGESTS["score.onnx"], "f" * 64),
        (DIGESTS["tokenizer.json"], "f" * 64),
        ('prompt = ["[CLS]", ', "prompt = ["),
        ('"{response}", "[SEP]"', '"{response}"'),
        ("max_tokens = 512", "max_tokens = 511"),
        ("max_tokens = 512", 'max_tokens = 512\nthinking_tags = [["<plan>", "</plan>"]]'),
        ("width = 64", "width = 65"),
        ("height = 64", 'height = 64\nfit = "stretch"'),
        ("height = 64", "height = 64\nrequired = true"),
        ("overall = 1.0", "overall = 0.5"),
        ("[onnx]", "[reading]\nrun = 3\nwindow = 128\nstep = 96\n[onnx]"),
        ("accuracy = { median = 0.0", "accuracy = { median = 0.1"),
        ("overall = { median = 0.0, scale = 1.0", "overall = { median = 0.0, scale = 2.0"),
        ("[calibration]", VIEWPOINT + "[calibration]"),
        (
            'image_graph = "image.onnx"\nscore_graph = "score.onnx"',
            'image_graph = "score.onnx"\nscore_graph = "image.onnx"',
        ),
    ],
)
def test_the_fingerprint_changes_with_what_decides_a_score(tmp_path: Path, old: str, new: str) -> None:
    assert read(tmp_path, replaced(old, new)).fingerprint != read(tmp_path, TEXT).fingerprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (DIGESTS["card.md"], "f" * 64),
        ('license = "Apache-2.0"', 'license = "MIT"'),
        ('provenance = "random weights"', 'provenance = "dice"'),
        ("[onnx]", "# a remark\n[onnx]"),
        ("overall = 1.0", "overall = 1"),
    ],
)
def test_the_fingerprint_stays_with_what_does_not(tmp_path: Path, old: str, new: str) -> None:
    assert read(tmp_path, replaced(old, new)).fingerprint == read(tmp_path, TEXT).fingerprint


def test_what_a_viewpoint_is_called_by_its_guideline_decides_no_reward(tmp_path: Path) -> None:
    text = replaced("[calibration]", VIEWPOINT + "[calibration]")
    other = text.replace("Safety first", "Safety").replace("a made-up guideline", "https://example.org")
    assert read(tmp_path, text).fingerprint == read(tmp_path, other).fingerprint
    weighed = text.replace("accuracy = 2.0", "accuracy = 2.5")
    assert read(tmp_path, text).fingerprint != read(tmp_path, weighed).fingerprint


def test_figures_beside_a_model_decide_no_score(tmp_path: Path) -> None:
    listed = replaced("[files]\n", f'[files]\n"measured.json" = "{"e" * 64}"\n')
    text = listed.replace('card = "card.md"', 'card = "card.md"\nmeasured = "measured.json"')
    assert read(tmp_path, text).fingerprint == read(tmp_path, TEXT).fingerprint
    assert read(tmp_path, listed).fingerprint != read(tmp_path, TEXT).fingerprint


def test_the_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    expected = "sha256:0a4317fed2707ade6fb83d8e5b484c723b1139bbea40c840b0985cd03a4c5e0c"
    assert read(tmp_path, TEXT).fingerprint == expected


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "tiny"', 'name = "tiny"\nfamliy = "x"', "famliy"),
        ("width = 64", "width = 64\nwidht = 64", "image.widht"),
        ('name = "tiny"', 'name = "tiny"\ndimensions = ["overall", "accuracy"]', "in this order"),
        ('name = "tiny"', 'name = "tiny"\ndimensions = []', "must be some of"),
        ('name = "tiny"', 'name = "tiny"\ndimensions = ["overall", "overall"]', "in this order"),
        ('name = "tiny"', 'name = "tiny"\ndimensions = ["overall"]', "calibration must name each"),
        ("overall = 1.0", "overal = 1.0", "weights may only name"),
        ("overall = 1.0", "overall = nan", "weights.overall"),
        ("max_tokens = 512", 'max_tokens = 512\nthinking_tags = [["<think>", "</x>"]]', "<think> is given twice"),
        ("accuracy = { median = 0.0, scale = 1.0 }\n", "", "calibration must name each"),
        ("scale = 1.0", "scale = 0.0", "calibration.accuracy.scale"),
        ("scale = 1.0", "scale = inf", "calibration.accuracy.scale"),
        ('"{question}"', '"{question}", "{question}"', "{question} once"),
        ('"{response}", ', "", "{response} once"),
        (f'"score.onnx" = "{DIGESTS["score.onnx"]}"\n', "", "no digest under [files] for score.onnx"),
        (DIGESTS["image.onnx"], "abc", "files.image.onnx"),
        ('image_graph = "image.onnx"', 'image_graph = "../image.onnx"', "onnx.image_graph"),
        ('tokenizer = "tokenizer.json"', "", "tokenizer"),
        ('evidence = "none"', 'evidence = "clinical"', "evidence"),
        ('runtime = "onnx"', 'runtime = "pickle"', "runtime"),
        ("[image]", "[image", "not TOML"),
        ("[calibration]", VIEWPOINT.replace("accuracy", "acuracy") + "[calibration]", "viewpoint safety may only name"),
        ("[calibration]", VIEWPOINT.replace("safety]", "Safety]") + "[calibration]", "viewpoints.Safety"),
        ("[calibration]", VIEWPOINT.replace("accuracy = 2.0", "") + "[calibration]", "viewpoints.safety.weights"),
        ("[calibration]", VIEWPOINT.replace('source = "a made-up guideline"', "") + "[calibration]", "safety.source"),
    ],
)
def test_a_faulty_manifest_is_refused_in_one_line_that_names_the_fault(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)) as refused:
        read(tmp_path, replaced(old, new))
    assert str(tmp_path / "model.toml") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_model_may_have_some_of_the_dimensions(tmp_path: Path) -> None:
    alone = replaced('name = "tiny"', 'name = "tiny"\ndimensions = ["overall"]')
    alone = re.sub(r"(?m)^(?!overall)\w+ = \{ median.*\n", "", alone)
    found = read(tmp_path, alone)
    assert (found.dimensions, [*found.calibration]) == (("overall",), ["overall"])
    assert found.fingerprint != read(tmp_path, TEXT).fingerprint
    with pytest.raises(ConfigurationError, match="weights may only name"):
        read(tmp_path, alone.replace("overall = 1.0", "accuracy = 1.0"))


def test_a_manifest_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not TOML"):
        read_manifest(path)


ONNX = """[onnx]
image_graph = "image.onnx"
score_graph = "score.onnx"
"""
VLM = (
    TEXT.replace(ONNX, '[vlm]\nimage = ["<image>"]\nhead = "score.onnx"\n')
    .replace('runtime = "onnx"', 'runtime = "torch_vlm"')
    .replace('"{question}"', '"{image}", "{question}"')
    .replace('"image.onnx"', '"config.json"')
)
OWN = VLM.replace("width = 64\nheight = 64", 'fit = "own"\nmin_pixels = 784\nmax_pixels = 3136\nmultiple = 28')
ASKED = VLM.replace('head = "score.onnx"', '[vlm.verbaliser]\nask = ["[SEP]", "{rubric}"]\nyes = "yes"\nno = "no"')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('image = ["<image>"]', 'image = ["[SEP]", "<image>"]'),
        ('ask = ["[SEP]", ', "ask = ["),
        ('yes = "yes"', 'yes = "true"'),
    ],
)
def test_how_a_vlm_is_read_is_in_its_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    assert old in ASKED
    assert read(tmp_path, ASKED.replace(old, new)).fingerprint != read(tmp_path, ASKED).fingerprint
    assert read(tmp_path, VLM).fingerprint != read(tmp_path, ASKED).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('head = "score.onnx"', "", "either a head or a verbaliser"),
        ('head = "score.onnx"', 'head = "other.safetensors"', "no digest under [files] for other.safetensors"),
        ('"{image}", ', "", "{image} once"),
        ('"config.json" =', '"other.json" =', "no digest under [files] for config.json"),
        ('answer = ["{response}", "[SEP]"]', 'answer = ["{response}"]', "a piece beside {response}"),
    ],
)
def test_a_faulty_manifest_of_a_vlm_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in VLM
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        read(tmp_path, VLM.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [("min_pixels = 784", "min_pixels = 785"), ("max_pixels = 3136", "max_pixels = 3135"), ("= 28", "= 14")],
)
def test_the_bounds_of_own_sizes_are_in_the_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    assert old in OWN
    assert read(tmp_path, OWN.replace(old, new)).fingerprint != read(tmp_path, OWN).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("multiple = 28", "multiple = 28\nwidth = 64", "image.width"),
        ("multiple = 28", "", "image.multiple"),
        ("multiple = 28", "multiple = 57", "multiple x multiple"),
        ("max_pixels = 3136", "max_pixels = 400000000", "image.max_pixels"),
        ("min_pixels = 784", "min_pixels = 3137", "at least min_pixels"),
    ],
)
def test_faulty_bounds_of_own_sizes_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        read(tmp_path, OWN.replace(old, new))
    with pytest.raises(ConfigurationError, match=r"fit own is for models with \[vlm\]"):
        read(
            tmp_path,
            TEXT.replace("width = 64\nheight = 64", OWN[OWN.index("fit = ") : OWN.index("multiple")] + "multiple = 28"),
        )


TILES = VLM.replace(
    "width = 64\nheight = 64",
    'fit = "tiles"\nrule = "internvl"\ntile = 448\ntokens = 256\nmin_tiles = 1\nmax_tiles = 12',
)


def test_the_bounds_of_tiles_are_in_the_fingerprint_and_bound_an_image(tmp_path: Path) -> None:
    assert read(tmp_path, TILES).image.sizes.pixels == 13 * 448 * 448
    fewer = TILES.replace("max_tiles = 12", "max_tiles = 6")
    assert read(tmp_path, fewer).image.sizes.pixels == 7 * 448 * 448
    assert read(tmp_path, fewer).fingerprint != read(tmp_path, TILES).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("max_tiles = 12", "", "rule internvl needs min_tiles, max_tiles, and no other bounds"),
        ("max_tiles = 12", "max_tiles = 12\nlongest = 448", "rule internvl needs min_tiles, max_tiles, and no other"),
        ("max_tiles = 12", "max_tiles = 65", "image.max_tiles"),
        ("min_tiles = 1", "min_tiles = 13", "max_tiles must be at least min_tiles"),
        ("tile = 448", "tile = 2048", "may have 16777216 pixels together"),
        ('rule = "internvl"', 'rule = "qwen"', "image.rule"),
    ],
)
def test_faulty_bounds_of_tiles_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TILES
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        read(tmp_path, TILES.replace(old, new))
