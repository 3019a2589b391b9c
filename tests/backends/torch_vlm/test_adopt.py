"""`medreward models adopt`: a checkpoint's own chat template, heads that are recognised, and what is refused."""

import json
from collections.abc import Callable
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, Gemma3Processor, LlavaProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from backends.torch_vlm import tiled
from backends.torch_vlm.checkpoints import (
    CONTROL,
    FAMILIES,
    IMAGE,
    SIDE,
    TOKENS,
    WORDLEVEL,
    Plain,
    opened,
    own_tokenizer,
    value_head,
    write_bare_checkpoint,
)
from medreward.artifacts.manifest import read_manifest
from medreward.backends.base import Group, ModelImage
from medreward.backends.torch_vlm.adopt import adopt
from medreward.backends.torch_vlm.verbaliser import RUBRICS
from medreward.cli.models import command
from medreward.clients import AsyncClient
from medreward.engine.files import open_verified
from medreward.engine.model import open_model
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Options, Turn
from serving import running

ASKED, SAID = "is there a fracture ?", "yes , a small fracture"
HEAD, VALUE_HEAD = "reward_head.safetensors", "value_head.safetensors"
PIXELS = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def turns_as(before: str, image: str, after: str, speaks: str) -> str:
    """A chat template that writes a turn between two texts."""
    return (
        "{% for turn in messages %}"
        + before
        + "{% for part in turn.content %}{% if part.type == 'image' %}"
        + image
        + ""
        "{% else %}{{ part.text }}{% endif %}{% endfor %}" + after + "{% endfor %}"
        "{% if add_generation_prompt %}" + speaks + "{% endif %}"
    )


CHATS = {
    "qwen2_5_vl": turns_as("<user>{{ turn.role }}\n", "<vision><image></vision>", "</s>\n", "<user>assistant\n"),
    "llava": turns_as("{{ turn.role | upper }}:\n", "<image>\n", "</s>", "ASSISTANT:\n"),
    "internvl": turns_as("<user>{{ turn.role }}\n", "<image>\n", "</s>\n", "<user>assistant\n"),
    "gemma3": "<s>" + turns_as("<user>{{ turn.role }}\n", "<vision>", "</s>\n", "<user>model\n"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bare_checkpoint(tmp_path / "Our VLM")
    return tmp_path / "Our VLM"


def byte_pairs() -> Tokenizer:
    """Merges line ends and words as large tokenizers do."""
    made = Tokenizer(models.BPE())
    lines = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([lines, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    corpus = [f"user\n\n\n{ASKED} assistant\n{SAID}\n\n", "USER: Is there", "ASSISTANT: Yes"] * 20
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=CONTROL, initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(corpus, trainer)
    return made


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def encoded(folder: Path, has_image: bool) -> list[int]:
    """What a server makes of the example."""
    text = open_model(Settings(model=str(folder))).text
    prompt = text.prompt(ASKED, has_image)
    return [*prompt.ids, *text.answer(prompt, SAID, Options()).ids]


def turns(has_image: bool) -> list[dict[str, Any]]:
    image = [{"type": "image", "image": Image.fromarray(PIXELS)}] if has_image else []
    user, assistant = ([{"type": "text", "text": text}] for text in (ASKED, SAID))
    return [{"role": "user", "content": [*image, *user]}, {"role": "assistant", "content": assistant}]


def rendered_by_transformers(folder: Path, family: str, has_image: bool) -> list[int]:
    own = AutoTokenizer.from_pretrained(folder)
    if family not in ("llava", "gemma3"):  # their processors need torchvision
        text = own.apply_chat_template(turns(has_image), tokenize=False)
        text = text.replace("<image>", "<vision><image></vision>") if family == "internvl" else text
        return list(own(text, add_special_tokens=False).input_ids)
    images, chat = FAMILIES[family].image_processor(), CHATS[family]
    made: Any = (
        Gemma3Processor(images, own, chat_template=chat, image_seq_length=4)
        if family == "gemma3"
        else LlavaProcessor(images, own, 14, "default", chat, num_additional_image_tokens=1)
    )
    ids = made.apply_chat_template(turns(has_image), tokenize=True, return_dict=True)["input_ids"][0]
    return [id_ for id_, run in groupby(ids) for _ in ([0] if id_ == IMAGE else run)]


@pytest.mark.parametrize("family", CHATS)
def test_the_text_is_the_checkpoints_own_chat_template(family: str, tmp_path: Path) -> None:
    FAMILIES[family].config().save_pretrained(tmp_path)
    FAMILIES[family].image_processor().save_pretrained(tmp_path)
    made = byte_pairs()
    if family in ("llava", "gemma3"):  # the one's template leaves it to the tokenizer, the other's has it too
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", CONTROL.index("<s>"))]
        )
    own_tokenizer(made).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(CHATS[family])
    save_file({"score.weight": torch.zeros(6, 64)}, tmp_path / "model.safetensors")
    assert adopt(tmp_path, "it") == []
    for has_image in (True, False):
        assert encoded(tmp_path, has_image) == rendered_by_transformers(tmp_path, family, has_image)


#: As LLaVA-1.5's: the images of a turn, then its texts.
IMAGES_FIRST = (
    "{% for turn in messages %}<{{ turn.role }}>{% for part in turn.content if part.type == 'image' %}<image>"
    "{% endfor %}{% for part in turn.content if part.type == 'text' %}{{ part.text }}{% endfor %}</s>{% endfor %}"
)


def test_turns_are_adopted_as_the_chat_template_writes_them(folder: Path) -> None:
    adopt(folder)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert manifest.text.turns is not None
    assert (manifest.text.turns.between, manifest.text.turns.images) == (("</s>", "<user>"), "in_place")
    assert manifest.text.turns.system == ()  # <system> is no token of this one


def test_images_that_a_template_writes_first_come_first(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(IMAGES_FIRST)
    assert adopt(folder) == []
    model = open_model(Settings(model=str(folder)))
    turns = [Turn("user", ("the left", 0, " lung")), Turn("assistant", "normal")]
    ids = model.text.prompt(ASKED, images=2, history=turns).ids
    theirs = ["<user>", "<image>", "the", "left", "lung", "</s>", "<assistant>", "normal", "</s>", "<user>", "<image>"]
    names = {id_: word for word, id_ in TOKENS.items()}
    shown = [names[id_] for id_ in ids[: len(theirs)]]
    assert shown == theirs


def test_a_template_that_writes_earlier_turns_otherwise_reads_none(folder: Path) -> None:
    upper = WORDLEVEL.replace("{{ part.text }}", "{{ part.text if messages | length < 3 else part.text | upper }}")
    (folder / "chat_template.jinja").write_text(upper)
    [remark] = adopt(folder)
    assert "turns before the question are not read" in remark
    _, manifest = open_verified(Settings(model=str(folder)))
    assert manifest.text.turns is None


def test_an_adopted_checkpoint_gives_the_logits_of_plain_transformers(folder: Path) -> None:
    done = CliRunner().invoke(command, ["adopt", str(folder), "--image-size", str(SIDE)], standalone_mode=False)
    assert (done.return_value, done.stderr) == (0, "")
    found, manifest = open_verified(Settings(model=str(folder)))
    assert manifest.name == "our-vlm"
    assert manifest.vlm is not None
    assert manifest.vlm.head == HEAD
    model = open_model(Settings(model=str(folder)))
    prompt = model.text.prompt(ASKED, True).ids
    answer = model.text.answer(model.text.prompt(ASKED, True), SAID, Options()).ids
    [group] = opened(found).score([Group(ModelImage("a", PIXELS), prompt, [answer])])
    ids = rendered_by_transformers(folder, "qwen2_5_vl", True)
    expected = Plain(folder, "qwen2_5_vl").logits(PIXELS, ids, [])
    assert np.abs(group[0] - expected.numpy()).max() <= 1e-4


def test_a_model_that_takes_any_size_is_adopted_with_its_own_bounds(folder: Path) -> None:
    done = CliRunner().invoke(command, ["adopt", str(folder)], standalone_mode=False)
    assert (done.return_value, done.stderr) == (0, "")
    assert "image: fit own, min_pixels 196, max_pixels 3136, multiple 14" in done.stdout
    open_verified(Settings(model=str(folder)))
    opened(folder)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision", "internvl"])
def test_a_family_of_tiles_is_adopted_with_the_tiles_of_its_own_processor(family: str, tmp_path: Path) -> None:
    tiled.write_tiled(tmp_path, family)
    written = read_manifest(tmp_path / "model.toml")
    (tmp_path / "model.toml").unlink()
    own_tokenizer(tiled.tokenizer()).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(turns_as("<user>", "<image>", "</s>", "<assistant>"))
    assert adopt(tmp_path, "it") == []
    adopted = read_manifest(tmp_path / "model.toml")
    assert adopted.image == written.image
    assert adopted.vlm
    assert written.vlm
    assert adopted.vlm.image == written.vlm.image
    opened(tmp_path)


def test_bounds_beyond_ours_are_lowered_and_that_is_said(folder: Path) -> None:
    published = {"patch_size": 14, "min_pixels": 3136, "max_pixels": 12845056}
    Qwen2VLImageProcessorPil(**published).save_pretrained(folder)
    done = CliRunner().invoke(command, ["adopt", str(folder), "--json"], standalone_mode=False)
    assert "max_pixels of images is 1003520, and 12845056 in its own image processor" in done.stderr
    image = json.loads(done.stdout)["image"]
    assert [image[name] for name in ("min_pixels", "max_pixels", "multiple")] == [3136, 1003520, 28]


@pytest.mark.parametrize("unlike", [{"resample": 2}, {"do_resize": False}, {"size": {"height": SIDE, "width": SIDE}}])
def test_a_processor_that_resizes_otherwise_is_given_one_size(folder: Path, unlike: dict[str, Any]) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | unlike))
    adopt(folder)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert (manifest.one_size.width, manifest.one_size.height) == ((SIDE if "size" in unlike else 448,) * 2)


def test_inspect_shows_the_text_of_an_adopted_checkpoint(folder: Path) -> None:
    adopt(folder)
    done = CliRunner().invoke(command, ["inspect", str(folder), "--json"], standalone_mode=False)
    shown = "<s><user><vision><image></vision>Is there a fracture?<assistant>Yes, of the left sixth rib.</s>"
    assert json.loads(done.stdout)["example_text"] == shown


def test_a_classifier_is_recognised_by_its_six_labels(folder: Path) -> None:
    (folder / HEAD).unlink()
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "score.weight": torch.ones(6, 64)}, folder / "model.safetensors", {"format": "pt"})
    adopt(folder)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert manifest.vlm is not None
    assert manifest.vlm.head == "model.safetensors"
    opened(folder)


def test_a_head_that_lies_in_an_adapter_is_found_there(folder: Path) -> None:
    (folder / HEAD).unlink()
    save_file({"base_model.model.score.weight": torch.ones(6, 64)}, folder / "adapter_model.safetensors")
    adopt(folder)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert manifest.vlm is not None
    assert manifest.vlm.head == "adapter_model.safetensors"


async def test_a_value_head_is_adopted_and_served_as_overall(folder: Path) -> None:
    (folder / HEAD).unlink()
    head = value_head()
    save_file(head, folder / VALUE_HEAD)
    done = CliRunner().invoke(command, ["adopt", str(folder), "--image-size", str(SIDE)], standalone_mode=False)
    assert done.return_value == 0, done.stderr
    _, manifest = open_verified(Settings(model=str(folder)))
    assert (manifest.dimensions, [*manifest.weights.items()]) == (("overall",), [("overall", 1.0)])
    state = Plain(folder, "qwen2_5_vl", heads=False).state(PIXELS, encoded(folder, True), [])
    expected = float(head["v_head.summary.weight"] @ state + head["v_head.summary.bias"])
    picture = BytesIO()
    Image.fromarray(PIXELS).save(picture, "PNG")
    async with running(model=str(folder), device="cpu", threads=1) as server:
        async with AsyncClient(f"http://127.0.0.1:{server.port}") as rest:
            [score] = await rest.score(picture.getvalue(), ASKED, [SAID])
        async with AsyncClient(f"grpc://{server.grpc_target}") as rpc:
            assert await rpc.score(picture.getvalue(), ASKED, [SAID]) == [score]
            [unrewarded] = await rpc.score(picture.getvalue(), ASKED, [SAID], weights={"accuracy": 1})
    assert score.reward == pytest.approx(expected, abs=1e-4)
    assert score.logits == dict.fromkeys(DIMENSIONS) | {"overall": score.reward}
    assert (unrewarded.reward, unrewarded.logits) == (None, score.logits)


def test_a_classifier_of_one_label_is_of_overall(folder: Path) -> None:
    (folder / HEAD).unlink()
    save_file({"score.weight": torch.ones(1, 64)}, folder / "more.safetensors")
    adopt(folder)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert manifest.dimensions == ("overall",)
    heads = opened(folder).heads
    assert heads(torch.ones(1, 1, 64)).tolist() == [[[64.0]]]


def test_a_model_without_a_head_is_taken_with_a_verbaliser(folder: Path) -> None:
    (folder / HEAD).unlink()
    with pytest.raises(ConfigurationError, match="--heads verbaliser"):
        adopt(folder)
    CliRunner().invoke(command, ["adopt", str(folder), "--heads", "verbaliser"], standalone_mode=False)
    _, manifest = open_verified(Settings(model=str(folder)))
    assert manifest.vlm is not None
    assert manifest.vlm.verbaliser is not None
    assert (manifest.vlm.verbaliser.yes, manifest.vlm.verbaliser.no) == ("yes", "no")  # it knows no capitals
    own = AutoTokenizer.from_pretrained(folder)
    tails = opened(folder).heads.tails
    question = RUBRICS["overall"] + " Reply with yes or no."
    more = [{"role": "user", "content": [{"type": "text", "text": question}]}]
    whole = own.apply_chat_template([*turns(True), *more], tokenize=False, add_generation_prompt=True)
    assert [*encoded(folder, True), *tails[-1]] == own(whole, add_special_tokens=False).input_ids


def score_of_two(folder: Path) -> None:
    (folder / HEAD).unlink()
    save_file({"score.weight": torch.zeros(2, 64)}, folder / "more.safetensors")


def two_value_heads(folder: Path) -> None:
    (folder / HEAD).unlink()
    save_file({**value_head(), **value_head("summary.")}, folder / VALUE_HEAD)


def narrow_value_head(folder: Path) -> None:
    (folder / HEAD).unlink()
    save_file({"v_head.summary.weight": torch.zeros(1, 63), "v_head.summary.bias": torch.zeros(1)}, folder / VALUE_HEAD)


def no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def only_an_adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def chat(template: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "chat_template.jinja").write_text(template)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (score_of_two, "score in more.safetensors has 2 labels"),
        (two_value_heads, "holds no head"),
        (narrow_value_head, "must be"),
        (no_safetensors, "no weights in safetensors"),
        (only_an_adapter, "no weights in safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "transformers cannot read it"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: change_config(folder, model_type="idefics3"), "how idefics3 writes an image"),
        (chat("{{ raise_exception('never') }}"), "cannot render"),
        (chat("<s>{{ messages[0].content[-1].text }}</s>"), "question and response once each"),
        (chat(WORDLEVEL.replace("<vision><image></vision>", "")), "image"),
    ],
)
def test_what_is_not_recognised_is_said(folder: Path, damage: Callable[[Path], Any], says: str) -> None:
    damage(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigurationError, match=f"cannot be adopted, and nothing was written: .*{says}"):
        adopt(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_tokens_that_differ_from_transformers_own_are_said(folder: Path) -> None:
    """Those of a word and the space before it, which the template says and the user does not."""
    own_tokenizer(byte_pairs()).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHATS["llava"].replace(":\n", ": "))
    done = CliRunner().invoke(command, ["adopt", str(folder)], standalone_mode=False)
    assert done.return_value == 0
    assert "not transformers' own with an image, from token" in done.stderr
    assert "Yes" in done.stderr


def test_a_manifest_that_is_there_is_left_as_it_is(folder: Path) -> None:
    (folder / "model.toml").write_text("")
    with pytest.raises(ConfigurationError, match=r"already has a model\.toml; nothing was written"):
        adopt(folder)
    assert (folder / "model.toml").read_text() == ""
