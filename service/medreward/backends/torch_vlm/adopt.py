"""Makes a manifest for a checkpoint as transformers saved it. `medreward models adopt` writes it into its folder; a
server keeps it in memory.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from PIL.Image import Resampling
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging

from medreward.artifacts.manifest import parse_manifest
from medreward.artifacts.repository import MANIFEST_FILE, sha256_of, transformers_files
from medreward.artifacts.toml import toml
from medreward.backends.torch_vlm.adapter import WEIGHTS
from medreward.backends.torch_vlm.chat import Chat
from medreward.backends.torch_vlm.heads import SCORE, TrainedHeads, score_among
from medreward.backends.torch_vlm.tiling import section_of
from medreward.encoding.text import FileTokenizer, TurnTemplate
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

HEAD: Final = "reward_head.safetensors"
VALUE_HEAD: Final = "value_head.safetensors"
TOKENIZER: Final = "tokenizer.json"
SIDE: Final = 448  # where the image processor takes any size
MAX_TOKENS: Final = 20_480  # a prompt of 16,384 and an answer of 4,096
IMAGE_TOKENS: Final = 1280  # most of an image at its own size; processors allow more than most devices bear
WORDS: Final = (("Yes", "No"), ("yes", "no"))


@dataclass(frozen=True, slots=True)
class Adoption:
    """The text of a manifest, and remarks on what will not be as in transformers."""

    text: str
    remarks: list[str]


def adopt(folder: Path, name: str | None = None, verbalise: bool = False, side: int | None = None) -> list[str]:
    """Writes the manifest into the folder, and returns remarks on what will not be as in transformers.

    Fails with a ConfigurationError that says what was not recognised; then nothing is written.
    """
    if (folder / MANIFEST_FILE).exists():
        raise ConfigurationError(f"{folder} already has a {MANIFEST_FILE}; nothing was written")
    try:
        adoption = make_manifest(folder, name or plain_name(folder.resolve().name), verbalise, side)
    except ConfigurationError as error:
        raise ConfigurationError(f"{folder} cannot be adopted, and nothing was written: {error}") from error
    draft = folder / f".{MANIFEST_FILE}"
    try:
        draft.write_text(adoption.text, "utf-8")
        draft.replace(folder / MANIFEST_FILE)
    finally:
        draft.unlink(missing_ok=True)
    return adoption.remarks


def plain_name(name: str) -> str:
    """Returns the name with what a manifest allows in names."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "adopted"


def make_manifest(folder: Path, name: str, verbalise: bool, side: int | None) -> Adoption:
    """Returns the manifest and writes nothing.

    Fails with a ConfigurationError that says what was not recognised, without the folder's name.
    """
    try:
        before = _stamps(folder)
        adoption = _read_checkpoint(folder, name, verbalise, side)
        if _stamps(folder) != before:
            raise ConfigurationError("its files changed while they were read")
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be read ({error.strerror})") from error
    return adoption


def _read_checkpoint(folder: Path, name: str, verbalise: bool, side: int | None) -> Adoption:
    config, own, image_processor = _open(folder)
    head, dimensions = (None, DIMENSIONS) if verbalise else head_of(folder)
    if head:  # as it will be read
        TrainedHeads(folder / head, config.get_text_config().hidden_size, len(dimensions), torch.device("cpu"))
    tokenizer = FileTokenizer(folder / TOKENIZER)
    chat = Chat(folder, config, tokenizer, own)
    template, unread = chat.template(), None
    try:
        template = replace(template, turns=chat.turns(template))
    except ConfigurationError as error:
        unread = f"turns before the question are not read: {error}"
    image, lowered = _image(config, image_processor, side)
    reads: dict[str, dict[str, Any]] = {"vlm": {"image": list(template.image)}}
    if head:
        reads["vlm"]["head"] = head
    else:
        reads["vlm.verbaliser"] = {"ask": list(chat.ask()), **_words(tokenizer)}
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or 2 * MAX_TOKENS
    tables: dict[str, dict[str, Any]] = {
        "image": image,
        "text": {
            "tokenizer": TOKENIZER,
            "prompt": list(template.prompt),
            "answer": list(template.answer),
            "max_tokens": min(MAX_TOKENS, positions // 2),  # the image's come on top
        },
        **_turns_table(template.turns),
        **reads,
        "weights": {"overall": 1.0},
        **{f"calibration.{dimension}": {"median": 0.0, "scale": 1.0} for dimension in dimensions},
        "files": {path.name: sha256_of(path) for path in transformers_files(folder)},
    }
    facts = {
        "name": name,
        "version": "0",
        "family": config.model_type,
        "dimensions": list(dimensions),
        "runtime": "torch_vlm",
        "evidence": "none",
        "license": "not stated",
        "provenance": f"adopted from a {config.model_type} checkpoint, with {head or 'a verbaliser'}; not calibrated",
    }
    text = toml(facts, tables)
    parse_manifest(text, folder / MANIFEST_FILE)
    differs = chat.differs(template)
    remarks = [remark for remark in (lowered, unread) if remark]
    remarks += [f"an example's tokens are not transformers' own {differs}"] if differs else []
    return Adoption(text, remarks)


def _turns_table(turns: TurnTemplate | None) -> dict[str, dict[str, Any]]:
    """Returns the section [text.turns], or nothing for a model that reads no turns."""
    if turns is None:
        return {}
    images = "first" if turns.images_first else "in_place"
    system = {"system": list(turns.system)} if turns.system else {}
    return {"text.turns": {"between": list(turns.between), **system, "images": images}}


def _open(folder: Path) -> tuple[Any, Any, Any]:
    """Returns config, tokenizer and image processor, as transformers opens them."""
    for name in ("config.json", TOKENIZER):
        if not (folder / name).exists():
            raise ConfigurationError(f"it has no {name}")
    if not any(path.name not in (HEAD, VALUE_HEAD, WEIGHTS) for path in folder.glob("*.safetensors")):
        raise ConfigurationError("it has no weights in safetensors")
    logging.set_verbosity_error()
    only: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **only)
        own = AutoTokenizer.from_pretrained(folder, **only)
        return config, own, AutoImageProcessor.from_pretrained(folder, backend="pil", **only)
    except Exception as error:  # whatever a file of a stranger makes of it
        raise ConfigurationError(f"transformers cannot read it: {error}") from error


def head_of(folder: Path) -> tuple[str, tuple[str, ...]]:
    """Returns the file of the head in a checkpoint without a manifest, and its dimensions; fails where it has none.

    A head of one row is that of `overall`.
    """
    if (folder / HEAD).exists():
        return HEAD, DIMENSIONS
    labels: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                if score := score_among(file.keys()):
                    labels[path.name] = file.get_slice(f"{score}weight").get_shape()[0]
        except (OSError, SafetensorError) as error:
            raise ConfigurationError(f"{path.name} cannot be read: {error}") from error
    for name, count in labels.items():
        if count in (1, len(DIMENSIONS)):
            return name, DIMENSIONS[-count:]
        raise ConfigurationError(f"the head named score in {name} has {count} labels, and 6 or 1 are needed")
    if (folder / VALUE_HEAD).exists():
        return VALUE_HEAD, DIMENSIONS[-1:]
    raise ConfigurationError(
        f"it has no head: no {HEAD}, no weights named {SCORE}weight, and no {VALUE_HEAD}; "
        "an instruction-tuned model is taken without one by --heads verbaliser"
    )


def _image(config: Any, image_processor: Any, side: int | None) -> tuple[dict[str, Any], str | None]:
    """Returns the section [image], and a remark where a bound is lower than the processor's own."""
    if not side and (tiles := section_of(config, image_processor)):
        return tiles, None
    bounds = _bounds(image_processor)
    if side or not bounds:
        width, height = (side, side) if side else _fixed_size(image_processor)
        return {"width": width, "height": height}, None
    least, most = bounds
    multiple = image_processor.patch_size * image_processor.merge_size
    bound = max(least, min(most, IMAGE_TOKENS * multiple**2))
    lowered = f"max_pixels of images is {bound}, and {most} in its own image processor" if bound < most else None
    return {"fit": "own", "min_pixels": least, "max_pixels": bound, "multiple": multiple}, lowered


def _bounds(image_processor: Any) -> tuple[int, int] | None:
    """Returns the fewest and most pixels of an image, or None unless the processor takes any size and resizes as we
    do.
    """
    resizes = image_processor.do_resize and image_processor.resample == Resampling.BICUBIC
    if not isinstance(image_processor, Qwen2VLImageProcessorPil) or not resizes:
        return None
    least, most = image_processor.size.shortest_edge, image_processor.size.longest_edge
    return (least, most) if least and most else None


def _fixed_size(image_processor: Any) -> tuple[int, int]:
    """Returns the width and height that the image processor leaves as they are."""
    for name in ("crop_size", "size"):
        size = getattr(image_processor, name, None)
        width, height = getattr(size, "width", None), getattr(size, "height", None)
        if width and height:
            return width, height
    return SIDE, SIDE


def _words(tokenizer: FileTokenizer) -> dict[str, str]:
    """Returns words for yes and no of one token each; fails where the tokenizer has none."""
    for yes, no in WORDS:
        ids = [tokenizer.encode(yes), tokenizer.encode(no)]
        if [len(word) for word in ids] == [1, 1] and ids[0] != ids[1]:  # both may be the unknown token
            return {"yes": yes, "no": no}
    raise ConfigurationError("its tokenizer has no single token for yes and for no, which a verbaliser needs")


def _stamps(folder: Path) -> list[tuple[str, int, int, int]]:
    """Returns what differs from an earlier call when a file was changed, added or removed meanwhile."""
    stats = ((path.name, path.stat()) for path in transformers_files(folder))
    return [(name, stat.st_ino, stat.st_size, stat.st_ctime_ns) for name, stat in stats]
