import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal, cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from medreward.artifacts.manifest import Manifest, Reading, read_manifest
from medreward.backends.base import Counts, Group, ModelImage
from medreward.backends.onnx import OnnxBackend, RunShape, load_cuda
from medreward.caches import ENTRY_BYTES
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.workers.device.loading import open_backend
from tiny_model import torch_logits

Triple = tuple[ModelImage | None, tuple[int, ...], tuple[int, ...]]
TOKENS_BYTES = 16 * 32 * 4  # of one image of the tiny model


@pytest.fixture(scope="session")
def manifest(tiny: Path) -> Manifest:
    return read_manifest(tiny / "model.toml")


@pytest.fixture
def backend(tiny: Path, manifest: Manifest) -> OnnxBackend:
    return OnnxBackend(tiny, manifest, "cpu", threads=2)


def image(seed: int) -> ModelImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return ModelImage(f"{seed:064x}", pixels)


def ids(rng: np.random.Generator, longest: int) -> tuple[int, ...]:
    return tuple(int(i) for i in rng.integers(5, 180, rng.integers(1, longest)))


def triples(count: int) -> list[Triple]:
    """Some share an image and prompt, some have no image; lengths from 2 to 250."""
    rng = np.random.default_rng(1)
    images = [image(seed) for seed in range(20)]
    prompts = [(images[rng.integers(20)] if rng.random() < 0.7 else None, ids(rng, 50)) for _ in range(count // 5)]
    return [(*prompts[rng.integers(len(prompts))], ids(rng, 200)) for _ in range(count)]


def alone(backend: OnnxBackend, triple: Triple) -> NDArray[np.float32]:
    picture, prompt, answer = triple
    [logits] = backend.score([Group(picture, prompt, [answer])])
    return logits.reshape(2, 6)


def regrouped(chosen: list[Triple]) -> list[tuple[Group, list[int]]]:
    """Triples of one image and prompt as one group, with the places they came from."""
    places: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for index, (picture, prompt, _) in enumerate(chosen):
        places.setdefault((picture.digest if picture else "", prompt), []).append(index)
    return [
        (Group(chosen[where[0]][0], chosen[where[0]][1], [chosen[i][2] for i in where]), where)
        for where in places.values()
    ]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_triple_has_the_same_bits_alone_and_in_any_batch_or_group(
    tiny: Path, manifest: Manifest, threads: int
) -> None:
    asked = triples(1000)
    single = OnnxBackend(tiny, manifest, "cpu", threads=1)
    expected = [alone(single, triple) for triple in asked]
    backend = OnnxBackend(tiny, manifest, "cpu", threads=threads)
    rng = np.random.default_rng(threads)
    order = rng.permutation(len(asked))
    for batch in np.array_split(order, np.sort(rng.integers(0, len(asked), 60))):
        chosen = [asked[i] for i in batch]
        one_each = backend.score([Group(picture, prompt, [answer]) for picture, prompt, answer in chosen])
        for index, logits in zip(batch, one_each, strict=True):
            assert np.array_equal(logits[0], expected[index])
        groups = regrouped(chosen)
        for (_, places), logits in zip(groups, backend.score([group for group, _ in groups]), strict=True):
            for place, row in zip(places, logits, strict=True):
                assert np.array_equal(row, expected[batch[place]])


def test_onnx_says_what_torch_says(backend: OnnxBackend) -> None:
    groups = [
        Group(image(3), (2, 40, 41, 3), [(50, 51, 3), (3,), tuple(range(5, 180))]),
        Group(None, (2, 9, 3), [(60, 3), (61, 62, 63, 3)]),
    ]
    for group, logits in zip(groups, backend.score(groups), strict=True):
        assert logits.shape == (len(group.answers), 2, 6)
        np.testing.assert_allclose(logits, torch_logits(group), rtol=0, atol=1e-5)


def test_image_prompt_and_answer_each_matter(backend: OnnxBackend) -> None:
    groups = [
        Group(picture, prompt, [answer])
        for picture in (None, image(1), image(2))
        for prompt in ((2, 7), (2, 8))
        for answer in ((9,), (10,))
    ]
    assert len({logits.tobytes() for logits in backend.score(groups)}) == len(groups)


def test_an_image_is_encoded_once(backend: OnnxBackend) -> None:
    group = Group(image(1), (2, 7), [(9,), (10,)])
    backend.take_counts()
    backend.score([group, Group(image(1), (2, 8), [(9,)]), Group(image(2), (2, 7), [(9,)]), Group(None, (2,), [(9,)])])
    assert backend.take_counts() == Counts(image_encodes=2, image_hits=1, prefix_runs=5)
    backend.score([group])
    again = backend.take_counts()
    assert again == Counts(image_hits=1, prefix_runs=2)
    encode, answers = again.phases
    assert (encode.name, answers.name) == ("encode", "answers")
    assert encode.started <= encode.ended <= answers.started <= answers.ended


def test_an_image_given_back_is_encoded_again_to_the_same_bits(backend: OnnxBackend) -> None:
    group = Group(image(1), (6, 7), [(8, 9)])
    [before] = backend.score([group])
    backend.release()
    backend.take_counts()
    [after] = backend.score([group])
    assert backend.take_counts().image_encodes == 1
    assert after.tobytes() == before.tobytes()


def test_an_image_another_tenant_sent_is_not_known(backend: OnnxBackend) -> None:
    ours, theirs = image(40), replace(image(40), tenant="them")
    ours_scored = backend.score([Group(ours, (2, 7), [(9,)])])
    backend.take_counts()
    assert np.array_equal(backend.score([Group(theirs, (2, 7), [(9,)])]), ours_scored)
    assert backend.take_counts().image_encodes == 1


def test_the_image_cache_keeps_what_was_used_last_within_its_bytes(tiny: Path, manifest: Manifest) -> None:
    backend = OnnxBackend(tiny, manifest, "cpu", threads=1, image_cache_bytes=2 * (TOKENS_BYTES + ENTRY_BYTES))

    def encodes(seed: int) -> bool:
        backend.score([Group(image(seed), (2, 7), [(9,)])])
        return backend.take_counts().image_encodes > 0

    assert [encodes(seed) for seed in (1, 2, 1, 3, 1, 2)] == [True, True, False, True, False, True]


def test_a_cache_of_no_bytes_still_scores_a_batch_of_many_images(tiny: Path, manifest: Manifest) -> None:
    groups = [Group(image(seed), (2, 7), [(9,)]) for seed in range(5)]
    without = OnnxBackend(tiny, manifest, "cpu", threads=1, image_cache_bytes=0)
    assert np.array_equal(without.score(groups), OnnxBackend(tiny, manifest, "cpu", threads=1).score(groups))


def test_an_empty_batch_and_an_empty_group_are_answered_as_such(backend: OnnxBackend) -> None:
    assert backend.score([]) == []
    empty, full = backend.score([Group(None, (2, 7), []), Group(None, (2, 7), [(9,)])])
    assert (empty.shape, full.shape) == ((0, 2, 6), (1, 2, 6))


def test_cost_counts_each_answers_tokens_and_the_image(backend: OnnxBackend) -> None:
    cost = backend.cost
    assert [cost.answers(2, [[5] * length])[0] for length in (2, 1)] == [16 + 4, 16 + 3]
    assert [cost.group(prompt=2, pixels=pixels) for pixels in (0, 64)] == [0, 16]


def test_warming_up_leaves_no_trace(backend: OnnxBackend) -> None:
    backend.take_counts()
    backend.warm_up()
    assert backend.take_counts() == Counts()
    assert str(backend.runtime) == "onnx/cpu/fp32"


def test_runs_of_a_gpu_hold_rows_of_one_padded_length_within_bounds() -> None:
    shape = RunShape(pad_to=32, rows=3, tokens=128)
    lengths = [1, 32, 33, 20, 31, 64, 40, 500]
    assert list(shape.runs(lengths)) == [[0, 1, 3], [4], [2, 5], [6], [7]]


def test_batched_runs_agree_with_single_ones(
    tiny: Path, manifest: Manifest, backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, on a CPU: padded rows in one run differ by rounding only."""
    monkeypatch.setitem(sys.modules["medreward.backends.onnx"].RUN_SHAPES, "cpu", RunShape(32, 32, 16_384))
    batched = OnnxBackend(tiny, manifest, "cpu", threads=1)
    groups = [group for group, _ in regrouped(triples(100))]
    for one, many in zip(backend.score(groups), batched.score(groups), strict=True):
        np.testing.assert_allclose(one, many, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_it_has_no_choice_of_type(tiny: Path, manifest: Manifest, dtype: Literal["fp32", "bf16"]) -> None:
    with pytest.raises(ConfigurationError, match="runs in fp32 alone"):
        open_backend(Settings(dtype=dtype), manifest, tiny)


def test_cuda_without_cuda_is_refused(tiny: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigurationError, match=r"install medreward\[gpu\]"):
        OnnxBackend(tiny, manifest, "cuda")


def test_a_library_of_cuda_that_is_missing_is_named_and_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    said = SimpleNamespace(preload_dlls=lambda: print("Failed to load libcudart.so.13:\nno such file"))  # noqa: T201
    assert load_cuda(cast(ModuleType, said)) == "Failed to load libcudart.so.13: no such file"
    assert capsys.readouterr().out == ""
    assert load_cuda(onnxruntime) == ""  # the build for processors has none to load


def test_a_missing_onnxruntime_says_what_to_install(
    tiny: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match=r"install medreward\[cpu\] or medreward\[gpu\]"):
        OnnxBackend(tiny, manifest, "cpu")


@pytest.mark.parametrize(
    ("onnx", "says"),
    [
        ({"image_graph": "card.md", "score_graph": "score.onnx"}, "cannot load .*card.md"),
        ({"image_graph": "image.onnx", "score_graph": "image.onnx"}, "image.onnx must have the inputs"),
    ],
)
def test_a_graph_that_is_not_one_is_refused(tiny: Path, manifest: Manifest, onnx: dict[str, str], says: str) -> None:
    other = Manifest.model_validate(manifest.model_dump() | {"onnx": onnx})
    with pytest.raises(ConfigurationError, match=says):
        OnnxBackend(tiny, other, "cpu")


def test_graphs_for_another_image_size_are_refused(tiny: Path, manifest: Manifest) -> None:
    other = Manifest.model_validate(manifest.model_dump() | {"image": {"width": 32, "height": 64}})
    with pytest.raises(ConfigurationError, match="do not fit together"):
        OnnxBackend(tiny, other, "cpu")


READING = Reading(run=3, window=24, step=16)


@pytest.fixture
def reader(tiny: Path, manifest: Manifest) -> OnnxBackend:
    return OnnxBackend(tiny, manifest.model_copy(update={"reading": READING}), "cpu", threads=2)


def test_an_answer_said_again_has_the_very_logits_of_what_it_says_once(reader: OnnxBackend) -> None:
    prompt, said, end = tuple(range(5, 12)), tuple(range(20, 28)), (3,)
    once, often = reader.score([Group(image(1), prompt, [(*said, *end), (*said * 20, *end)])])[0]
    np.testing.assert_array_equal(once, often)


def test_a_short_answer_is_read_as_without_windows(backend: OnnxBackend, reader: OnnxBackend) -> None:
    group = Group(image(1), tuple(range(5, 12)), [(*range(20, 40), 3)])
    np.testing.assert_array_equal(reader.score([group])[0], backend.score([group])[0])


def test_a_long_answer_is_the_mean_of_its_windows_of_which_those_that_answer_weigh_most(
    backend: OnnxBackend, reader: OnnxBackend
) -> None:
    prompt, said = tuple(range(5, 12)), tuple(range(20, 90))
    starts = (0, 16, 32, 46)
    parts = backend.score([Group(image(1), prompt, [(*said[start : start + 24], 3) for start in starts])])[0]
    answering = parts[:, :, 4].mean(1).astype(np.float64)
    weights = np.exp(answering) / np.exp(answering).sum()
    [found] = reader.score([Group(image(1), prompt, [(*said, 3)])])
    np.testing.assert_allclose(found[0], np.tensordot(weights, parts, 1), atol=1e-5)


def test_a_long_answer_has_the_same_bits_alone_and_in_any_group(reader: OnnxBackend) -> None:
    asked = [(picture, prompt, (*answer, 3)) for picture, prompt, answer in triples(100)]
    expected = [alone(reader, triple) for triple in asked]
    for group, where in regrouped(asked):
        for place, logits in zip(where, reader.score([group])[0], strict=True):
            np.testing.assert_array_equal(logits.reshape(2, 6), expected[place])
