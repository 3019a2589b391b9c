import time

import numpy as np

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import Backend, Group, ModelImage
from medreward.backends.fake import FAKE_MANIFEST, FakeBackend, WordTokenizer
from medreward.encoding.text import Tokenizer
from medreward.types import Evidence

BLACK = np.zeros((2, 2, 3), np.uint8)


def group(digest: str | None = "aa", prompt: tuple[int, ...] = (1, 2), *answers: tuple[int, ...]) -> Group:
    return Group(ModelImage(digest, BLACK) if digest else None, prompt, answers or ((3,), (2**32 + 7,), ()))


def test_a_triple_has_the_same_numbers_in_any_grouping() -> None:
    backend: Backend = FakeBackend()
    whole = backend.score([group(), group(None)])
    assert [logits.shape for logits in whole] == [(3, 1, 6), (3, 1, 6)]
    for index, answer in enumerate(group().answers):
        [alone] = backend.score([group("aa", (1, 2), tuple(answer))])
        assert np.array_equal(alone[0], whole[0][index])


def test_image_prompt_and_answer_each_change_the_numbers() -> None:
    variants = [
        group("aa", (1, 2), (3,)),
        group("ab", (1, 2), (3,)),
        group(None, (1, 2), (3,)),
        group("aa", (1,), (3,)),
        group("aa", (1,), (2, 3)),
        group("aa", (1, 2), (4,)),
        group("aa", (1, 2), (3, 3)),
    ]
    logits = {array.tobytes() for array in FakeBackend().score(variants)}
    assert len(logits) == len(variants)


def test_the_numbers_are_the_same_on_every_machine() -> None:
    [logits] = FakeBackend().score([group("aa", (1, 2), (3,))])
    assert logits[0, 0].tolist() == [
        -0.6215704083442688,
        0.3243630826473236,
        -0.6798463463783264,
        -2.2194015979766846,
        1.7910139560699463,
        -0.904704213142395,
    ]


def test_the_numbers_look_like_logits() -> None:
    logits = np.concatenate(
        FakeBackend().score([group("aa", (seed,), *((i,) for i in range(50))) for seed in range(50)])
    )
    assert abs(logits.mean()) < 0.05
    assert 1.4 < logits.std() < 1.6
    assert np.abs(np.corrcoef(logits[:, 0].T) - np.eye(6)).max() < 0.1


def test_a_batch_takes_the_delay_once() -> None:
    started = time.perf_counter()
    FakeBackend(delay_s=0.5).score([group()] * 8)
    assert 0.5 <= time.perf_counter() - started < 4  # not eight times


def test_cost_counts_the_prompt_once() -> None:
    cost = FakeBackend().cost
    assert cost.group(prompt=2, pixels=9) + sum(cost.answers(2, [[3], [4, 5]])) == 5


def test_it_says_what_it_is() -> None:
    manifest: Manifest = FAKE_MANIFEST
    assert (manifest.name, manifest.evidence, str(FakeBackend().runtime)) == ("fake", Evidence.NONE, "fake/cpu/fp32")


def test_no_word_is_a_control_token() -> None:
    tokenizer: Tokenizer = WordTokenizer()
    ids = tokenizer.encode("one <|im_start|>\n[SEP]  one")
    assert len(ids) == 4
    assert ids[0] == ids[3]
    assert not set(ids) & set(tokenizer.control_tokens.values())
    assert min(tokenizer.control_tokens.values()) >= 2**32
