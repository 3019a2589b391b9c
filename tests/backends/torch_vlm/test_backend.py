"""Logits are those of transformers itself, whatever company a triple has and whatever is cached."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backends.torch_vlm.checkpoints import (
    DEEP,
    EACH_FAMILY,
    FAMILIES,
    SIDE,
    TOKENS,
    VOCABULARY,
    Plain,
    opened,
    write_checkpoint,
)
from medreward.backends.base import Backend, Counts, Group, ModelImage
from medreward.backends.torch_vlm.backend import TorchVlmBackend
from medreward.backends.torch_vlm.reference import compare
from medreward.encoding.text import EncodedText
from medreward.engine.model import open_model
from medreward.errors import ItemError
from medreward.settings import Settings
from medreward.types import Options, Turn
from medreward.workers.device.runner import Runner

CONVERSATION = (
    Turn("system", "no"),
    Turn("user", ("the left lung", 0, "normal ?")),
    Turn("assistant", "the heart is enlarged"),
)
TEXT_ALONE = (Turn("user", "is the heart large ?"), Turn("assistant", "yes"))
NOTHING = EncodedText([])
EXACT = 1e-4  # against another implementation, in fp32
SAME = 1e-5  # against itself in other company: matmuls change with the shape


@dataclass
class Loaded:
    folder: Path
    family: str

    def backend(self, **given: Any) -> TorchVlmBackend:
        return opened(self.folder, **given)


deep = pytest.mark.parametrize("loaded", DEEP, indirect=True)


@pytest.fixture(scope="module", params=EACH_FAMILY)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder, request.param)
    yield Loaded(folder, request.param)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def image(seed: int) -> ModelImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return ModelImage(f"{seed:064x}", pixels)


def ids(rng: np.random.Generator, longest: int) -> list[int]:
    return [int(i) for i in rng.integers(max(TOKENS.values()) // 2, VOCABULARY, rng.integers(1, longest))]


def groups(family: str) -> list[Group]:
    """Two questions about one image, one about another, one about none; answers of up to 60 tokens, two of them equal,
    and some that begin alike, as in an explanation and as in steps.
    """
    rng = np.random.default_rng(3)
    placeholder = [TOKENS[piece] for piece in FAMILIES[family].image]
    made = []
    for number, picture in enumerate((image(1), image(1), image(2), None)):
        prompt = [TOKENS["<s>"], *(placeholder if picture else []), *ids(rng, 20)]
        answers = [ids(rng, 60) for _ in range(1 + 2 * number)]
        longest = max(answers, key=len)
        alike = [[*longest[:k], *longest[k + 10 :]] for k in (20, 30)] if number == 2 else []
        cut = [[*longest[:k], TOKENS["</s>"]] for k in (40, 30, 20)] if number == 2 else []
        made.append(Group(picture, prompt, [*answers, *alike, *cut]))
    return [*made, Group(made[0].image, made[0].prompt, [made[0].answers[0], [5]])]


def test_every_logit_is_that_of_a_plain_forward_of_the_whole_sequence(loaded: Loaded) -> None:
    backend: Backend = loaded.backend()
    plain = Plain(loaded.folder, loaded.family)
    asked = groups(loaded.family)
    spread = []
    for group, logits in zip(asked, backend.score(asked), strict=True):
        assert logits.shape == (len(group.answers), 2, 6)
        [first] = backend.score([Group(group.image, group.prompt, group.answers[:1])])  # alone, off what was kept
        assert_same(first[0], logits[0])
        for answer, row in zip(group.answers, logits, strict=True):
            pixels = group.image.pixels if group.image else None
            expected = plain.logits(pixels, group.prompt, answer).numpy()
            assert np.abs(row - expected).max() <= EXACT
            spread.append(expected)
    assert np.std(spread, axis=0).min() > 0.05  # numbers that could be told apart
    one, other = backend.score([Group(image(n), asked[0].prompt, asked[0].answers) for n in (1, 2)])
    assert np.abs(one - other).max() > 0.01  # the image shows


def test_a_conversation_with_two_images_has_the_logits_of_plain_transformers(loaded: Loaded) -> None:
    """A system turn, two turns and a question; the first turn shows one image between two texts, the question another.
    In one batch with the images in the other order, one image alone, and none."""
    model = open_model(Settings(model=str(loaded.folder)))
    answers = [model.text.answer(NOTHING, said, Options()).ids for said in ("no fracture", "a large effusion")]
    first, second = image(1), image(2)
    asked = []
    for history, images in (
        (CONVERSATION, (first, second)),
        (CONVERSATION, (second, first)),
        (CONVERSATION[1:], (first, second)),
        ((), (first, second)),
        (CONVERSATION, (first,)),
        (TEXT_ALONE, ()),
    ):
        prompt = model.text.prompt("is there a fracture ?", images=len(images), history=history)
        shown = [images[place] for place in prompt.images]
        asked.append(Group(shown[0] if shown else None, prompt.ids, answers, tuple(shown[1:])))
    plain = Plain(loaded.folder, loaded.family)
    logits = loaded.backend().score(asked)
    for group, rows in zip(asked, logits, strict=True):
        pixels = [each.pixels for each in group.images]
        for answer, row in zip(group.answers, rows, strict=True):
            expected = plain.logits(pixels[0] if pixels else None, group.prompt, answer, pixels[1:]).numpy()
            assert np.abs(row - expected).max() <= EXACT
    for one, other in combinations(logits, 2):
        assert np.abs(one - other).max() > 0.01  # order and number of images show, and the turns
    compared = compare(loaded.backend(), asked)
    assert max(each.largest for each in compared) <= EXACT


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    for module in ("packing", "backbone", "backend"):
        monkeypatch.setattr(f"medreward.backends.torch_vlm.{module}.BLOCK", 8)
    return 8


def long_groups(family: str, block: int) -> list[Group]:
    """Two images early in a prompt of five blocks; two questions that differ in its last block alone; no image."""
    rng = np.random.default_rng(4)
    placeholder = [TOKENS[piece] for piece in FAMILIES[family].image]
    words = [int(word) for word in rng.integers(max(TOKENS.values()) // 2, VOCABULARY, 5 * block + 3)]
    begin = [TOKENS["<s>"], *placeholder, 12, *placeholder, *words]
    answers = [[13, 14], [int(word) for word in rng.integers(20, VOCABULARY, 3 * block + 1)]]
    two = (image(2),)
    return [
        Group(image(1), [*begin, 15], answers, two),
        Group(image(1), [*begin, 16, 17], answers, two),
        Group(None, [TOKENS["<s>"], *words], answers[1:]),
    ]


def test_long_prompts_and_answers_that_run_in_blocks_have_the_same_logits(loaded: Loaded, short_blocks: int) -> None:
    plain = Plain(loaded.folder, loaded.family)
    asked = long_groups(loaded.family, short_blocks)
    for group, rows in zip(asked, loaded.backend().score(asked), strict=True):
        pixels = [each.pixels for each in group.images]
        for answer, row in zip(group.answers, rows, strict=True):
            expected = plain.logits(pixels[0] if pixels else None, group.prompt, answer, pixels[1:]).numpy()
            assert np.abs(row - expected).max() <= EXACT


@deep
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_history_that_two_questions_share_runs_once(loaded: Loaded, short_blocks: int, deterministic: bool) -> None:
    backend = loaded.backend(deterministic=deterministic)
    asked = long_groups(loaded.family, short_blocks)
    run: list[int] = []

    def counted(_: object, given: tuple[object, ...], kwargs: dict[str, torch.Tensor], *__: object) -> None:
        embedded = kwargs.get("inputs_embeds")
        run.append((kwargs["input_ids"] if embedded is None else embedded).shape[1])

    backend.backbone.base.get_decoder().register_forward_hook(counted, with_kwargs=True)
    costs = []
    for group in asked[:2]:
        backend.score([Group(group.image, group.prompt, [[13]], group.further)])
        costs.append(sum(run))
        run.clear()
    assert costs[0] > len(asked[0].prompt)
    assert costs[1] <= short_blocks + 1  # the last block and the answer
    kept = backend.score(asked)
    for one, other in zip(kept, loaded.backend(deterministic=deterministic).score(asked[::-1])[::-1], strict=True):
        assert np.abs(one - other).max() <= (0 if deterministic else SAME)


@deep
def test_what_is_kept_of_prompts_stays_within_its_bytes(loaded: Loaded, short_blocks: int) -> None:
    most = 60_000
    backend = loaded.backend(prefix_cache_bytes=most)
    asked = long_groups(loaded.family, short_blocks)
    for n in range(20):
        backend.score([Group(g.image, [*g.prompt, 20 + n], [[13]], g.further) for g in asked[:2]])
        assert 0 < backend.prefix_bytes <= most


def test_bits_are_the_same_after_the_device_was_given_back_and_taken_again(loaded: Loaded) -> None:
    asked = groups(loaded.family)
    backend = loaded.backend()
    before = backend.score(asked)
    backend.rest()
    assert {weight.device.type for weight in backend.backbone.base.parameters()} == {"cpu"}
    backend.resume()
    for one, other in zip(before, backend.score(asked), strict=True):
        assert np.array_equal(one, other)


@deep
def test_company_order_and_caches_change_nothing(loaded: Loaded) -> None:
    asked = groups(loaded.family)
    backend = loaded.backend()
    first = backend.score(asked)
    again = backend.score(asked)
    uncached = loaded.backend(prefix_cache_bytes=0)
    backwards = [Group(g.image, g.prompt, g.answers[::-1]) for g in asked[::-1]]
    turned = [logits[::-1] for logits in uncached.score(backwards)[::-1]]
    for group, *same in zip(asked, first, again, turned, strict=True):
        alone = np.concatenate([uncached.score([Group(group.image, group.prompt, [a])])[0] for a in group.answers])
        for other in (*same[1:], alone):
            assert_same(same[0], other)


@deep
def test_when_deterministic_company_order_and_caches_change_no_bit(loaded: Loaded) -> None:
    asked = groups(loaded.family)
    backend = loaded.backend(deterministic=True)
    first = backend.score(asked)
    again = backend.score(asked)
    uncached = loaded.backend(prefix_cache_bytes=0, deterministic=True)
    turned = uncached.score([Group(g.image, g.prompt, g.answers[::-1]) for g in asked[::-1]])
    for group, logits, same, other in zip(asked, first, again, turned[::-1], strict=True):
        assert np.array_equal(logits, same)
        assert np.array_equal(logits, other[::-1])
        for answer, row in zip(group.answers, logits, strict=True):
            [alone] = uncached.score([Group(group.image, group.prompt, [answer])])
            assert np.array_equal(alone[0], row)
    for one, other in zip(first, loaded.backend().score(asked), strict=True):
        assert_same(one, other)


@deep
def test_a_single_answer_runs_along_with_its_prompt_and_leaves_its_state(loaded: Loaded) -> None:
    backend = loaded.backend()
    several = next(group for group in groups(loaded.family) if group.image and len(group.answers) > 1)
    single = Group(several.image, several.prompt, several.answers[:1])
    forwards = 0

    def counted(*_: object) -> None:
        nonlocal forwards
        forwards += 1

    backend.backbone.base.get_decoder().register_forward_hook(counted)
    [alone] = backend.score([single])
    assert forwards == 1
    backend.take_counts()
    [together] = backend.score([several])
    assert backend.take_counts().prefix_hits == 1
    assert_same(alone, together[:1])


@deep
def test_answers_that_fill_many_rows_are_the_same(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = groups(loaded.family)
    whole = loaded.backend().score(asked)
    monkeypatch.setattr("medreward.backends.torch_vlm.packing.ENOUGH", 20)
    monkeypatch.setattr("medreward.backends.torch_vlm.backbone.RUN_TOKENS", {"cpu": 40})
    monkeypatch.setattr("medreward.backends.torch_vlm.backbone.PROMPT_TOKENS", {"cpu": 100})
    for one, other in zip(whole, loaded.backend().score(asked), strict=True):
        assert_same(one, other)


@deep
def test_images_and_prompts_run_once(loaded: Loaded) -> None:
    backend = loaded.backend()
    backend.warm_up()
    backend.take_counts()
    asked = groups(loaded.family)
    backend.score(asked)
    counts = backend.take_counts()
    assert counts == Counts(image_encodes=2, image_hits=1, prefix_runs=4, prefix_hits=1)
    assert [phase.name for phase in counts.phases] == ["encode", "prompt", "answers"]
    backend.score(asked)
    assert backend.take_counts() == Counts(prefix_runs=1, prefix_hits=4)  # text alone is not kept
    new_question = Group(image(1), [*asked[0].prompt, 20], [[5]])
    other_tenant = Group(ModelImage(image(1).digest, image(1).pixels, "clinic"), asked[0].prompt, [[5]])
    backend.score([new_question])
    assert backend.take_counts() == Counts(image_hits=1, prefix_runs=1)
    backend.score([other_tenant])
    assert backend.take_counts() == Counts(image_encodes=1, prefix_runs=1)


@deep
def test_what_is_given_back_is_made_again(loaded: Loaded) -> None:
    backend = loaded.backend()
    asked = groups(loaded.family)
    first = backend.score(asked)
    backend.release()
    backend.take_counts()
    again = backend.score(asked)
    assert backend.take_counts() == Counts(image_encodes=2, image_hits=1, prefix_runs=4, prefix_hits=1)
    for one, other in zip(first, again, strict=True):
        assert_same(one, other)


@deep
@torch.inference_mode()
def test_of_the_states_of_a_long_answer_its_last_alone_stays_in_memory(loaded: Loaded) -> None:
    backbone = loaded.backend().backbone
    [(_, last)] = backbone.prefixes([[TOKENS["<s>"], 12]], [], [[13] * 100])
    assert last.untyped_storage().nbytes() == backbone.width * 4


@deep
def test_a_batch_without_memory_is_gone_when_its_parts_are_tried(loaded: Loaded) -> None:
    backend = loaded.backend()
    asked = groups(loaded.family)
    expected = backend.score(asked)
    runner = Runner(backend)
    most = max(sum(map(len, group.answers)) for group in asked)
    taken: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def exhaust(module: torch.nn.Module, given: object, hidden: torch.Tensor) -> None:
        alive.extend(ref() is not None for ref in taken)
        if hidden.shape[:2].numel() > most:  # tokens of several groups
            taken.append(weakref.ref(hidden))
            torch.empty(10**15)

    hook = backend.backbone.base.get_decoder().norm.register_forward_hook(exhaust)
    gc.disable()
    try:
        outcomes = runner.score(asked).outcomes
    finally:
        gc.enable()
        hook.remove()
    assert taken
    assert not any(alive)
    for logits, rows in zip(expected, outcomes, strict=True):
        assert_same(logits, np.stack([row for row in rows if not isinstance(row, ItemError)]))


@deep
def test_what_it_costs_and_what_it_is(loaded: Loaded) -> None:
    backend = loaded.backend()
    assert str(backend.runtime) == "torch_vlm/cpu/fp32"
    tokens = FAMILIES[loaded.family].image_tokens
    assert backend.cost.group(prompt=10, pixels=SIDE * SIDE) == tokens + 10
    assert backend.cost.group(prompt=10, pixels=3 * SIDE * SIDE, images=3) == 3 * tokens + 10
    assert backend.cost.answers(10, [[13] * 7]) == [7]


def assert_same(one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
    assert np.abs(one - other).max() <= SAME
