"""A model over two processes: the numbers of one process, a part of the model in each, and one end for both."""

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from backends.torch_vlm import test_own_size as own_size
from backends.torch_vlm.checkpoints import FAMILIES, SIDE, TEXT, TOKENS, opened, write_checkpoint, write_manifest
from backends.torch_vlm.test_backend import groups
from backends.torch_vlm.test_loading import VERBALISER
from medreward.artifacts.manifest import read_manifest
from medreward.backends.base import CostModel, Counts, DeviceBroken, Group, RankSeat
from medreward.backends.fake import FAKE_MANIFEST
from medreward.backends.torch_vlm.sharing import config_to_share, join
from medreward.cli.parity import check_parity
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.settings import Settings
from medreward.types import Phase, Runtime
from medreward.workers.device import process_worker, rank, spread
from medreward.workers.device.loading import open_backend
from medreward.workers.device.process_worker import ProcessWorker
from medreward.workers.device.runner import Runner
from medreward.workers.device.spread import Failed, FromRank, Numbers, Score, Scored, Spread
from medreward.workers.device.worker import WorkerLost
from medreward.workers.frames import GroupFrame, Load, Loaded, Refused
from medreward.workers.memory import anonymous_memory
from waiting import until

EXACT = 1e-4
FAMILY = "qwen2_5_vl"
TEXT_ALONE = Group(None, [TOKENS["<s>"], 12], [[13, 14], [15]])
FRAME = GroupFrame([], TEXT_ALONE.prompt, TEXT_ALONE.answers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(FAMILY)
    write_checkpoint(folder, FAMILY)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def settings(**given: Any) -> Settings:
    return Settings(**{"device": "cpu", "threads": 1, "tensor_parallel": 2, **given})


def over_two(folder: Path, **given: Any) -> Spread:
    backend = open_backend(settings(**given), read_manifest(folder / "model.toml"), folder)
    assert isinstance(backend, Spread)
    return backend


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


async def all_gone(*pids: int) -> None:
    await until(lambda: all(is_gone(pid) for pid in pids))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_plan_for_two(family: str, tmp_path: Path) -> None:
    FAMILIES[family].config().save_pretrained(tmp_path)
    assert config_to_share(tmp_path, 2).get_text_config().base_model_tp_plan


# Ranks share the language model alone, and two of them take fifteen seconds of CPU to start. So one family of each kind
# runs: a plain language model, layers that look back a window, features for deeper layers with a plan of our own, and,
# in the tests below, images of any size.
@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen3_vl"])
def test_two_ranks_give_the_logits_of_one_from_half_of_the_weights(
    family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path, family)
    one, two = opened(tmp_path), over_two(tmp_path, log_level="debug")
    try:
        logged = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "rank loaded" in line]
        assert sorted(line["rank"] for line in logged) == [0, 1]
        assert max(line["weight_bytes"] for line in logged) < 0.6 * one.weight_bytes
        assert (two.runtime, two.cost) == (one.runtime, one.cost)
        asked = groups(family)
        for _ in range(2):  # the second time off what was kept
            for logits, expected in zip(two.score(asked), one.score(asked), strict=True):
                assert np.abs(logits - expected).max() <= EXACT
            assert two.take_counts() == one.take_counts()
    finally:
        two.close()


@pytest.mark.parametrize("deterministic", [False, True])
def test_images_of_many_sizes_and_answers_alone_are_the_same_over_two(tmp_path: Path, deterministic: bool) -> None:
    own_size.written(tmp_path, FAMILY)
    two = over_two(tmp_path, deterministic=deterministic)
    try:
        one, asked = opened(tmp_path, deterministic=deterministic), own_size.groups()
        for logits, expected in zip(two.score(asked), one.score(asked), strict=True):
            assert np.abs(logits - expected).max() <= EXACT
    finally:
        torch.use_deterministic_algorithms(False)
        two.close()


def test_a_verbaliser_reads_the_shared_rows_of_the_language_model(folder: Path) -> None:
    write_manifest(folder, FAMILY, VERBALISER)
    two = over_two(folder)
    try:
        [logits], [expected] = two.score([TEXT_ALONE]), opened(folder).score([TEXT_ALONE])
        assert np.abs(logits - expected).max() <= EXACT
    finally:
        two.close()


def test_ranks_that_all_fail_go_on(made: Path) -> None:
    """With an id that a shared embedding would take for zeros."""
    two = over_two(made)
    try:
        runner = Runner(two)
        done = runner.score([TEXT_ALONE, Group(None, [1], [[10**6]])])
        outcomes = [outcome for group in done.outcomes for outcome in group]
        [expected] = opened(made).score([TEXT_ALONE])
        scored = [outcome for outcome in outcomes[:2] if not isinstance(outcome, ItemError)]
        assert len(scored) == 2
        assert np.abs(np.stack(scored) - expected).max() <= EXACT
        assert isinstance(outcomes[2], ItemError)
        assert outcomes[2].code == Code.INTERNAL
    finally:
        two.close()


def test_a_rank_that_alone_has_no_memory_ends_all(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "AGREE_SECONDS", 2.0)
    two = over_two(made)
    try:
        pages = int(Path(f"/proc/{two.pids[1]}/statm").read_text().split()[0])
        resource.prlimit(two.pids[1], resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
        with pytest.raises(DeviceBroken):
            two.score([Group(None, [1] * 3000, [[13] * 3000, [14] * 3000])])  # a mask of 144 MB
        assert all(is_gone(pid) for pid in two.pids)
    finally:
        two.close()


async def test_a_lost_rank_is_the_loss_of_its_worker(made: Path) -> None:
    lost: list[str] = []
    fd = anonymous_memory(SIDE * SIDE * 3)
    patience = settings(batch_seconds=2, hang_seconds=60)
    worker = ProcessWorker(patience, read_manifest(made / "model.toml"), made, fd, lost.append)
    try:
        await worker.start()
        expected = outcomes(await worker.score([FRAME]))
        for how in (signal.SIGKILL, signal.SIGSTOP):
            first = pid_of(worker)
            ranks = children(first)
            assert len(ranks) == 2
            os.kill(ranks[1], how)
            with pytest.raises(WorkerLost):
                await worker.score([FRAME])
            await all_gone(first, *ranks)
            await worker.ready()
            assert np.abs(outcomes(await worker.score([FRAME])) - expected).max() == 0
        ranks = children(pid_of(worker))
    finally:
        await worker.close()
        os.close(fd)
    await all_gone(*ranks)
    assert lost == ["crash", "hang"]


def pid_of(worker: ProcessWorker) -> int:
    pid = worker.state()["pid"]
    assert isinstance(pid, int)
    return pid


def outcomes(done: Any) -> Any:
    return np.stack([outcome for group in done.outcomes for outcome in group])


class Scripted(Spread):
    """Its ranks are threads that answer what they are told to, and are silent at None."""

    def __init__(self, *scripts: Sequence[FromRank | None]) -> None:
        self.scripts = scripts
        super().__init__(settings(), FAKE_MANIFEST, Path())

    def _start(self, settings: Settings) -> None:
        for script in self.scripts:
            ours, theirs = Pipe()
            self._pipes.append(ours)
            threading.Thread(target=self._answer, args=(theirs, script), daemon=True).start()

    @staticmethod
    def _answer(pipe: Connection, script: Sequence[FromRank | None]) -> None:
        with pipe, contextlib.suppress(EOFError):  # the other end may be closed meanwhile
            for answer in (LOADED, *script):
                spread.receive(pipe)
                if answer:
                    spread.send(pipe, answer)
            spread.receive(pipe)


LOADED = Loaded(Runtime("torch_vlm", "cpu", "fp32"), CostModel())
WARM = Scored([], Counts())
NUMBERS = Scored([Numbers((1, 1, 6), bytes(24))], Counts(prefix_runs=1))
NO_MEMORY = Failed("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
ASKED = Group(None, [1], [[2]])


def test_no_memory_on_all_ranks_is_told_as_on_one() -> None:
    script: list[FromRank | None] = [WARM, NO_MEMORY, NUMBERS, NO_MEMORY, NO_MEMORY]
    [outcomes] = Runner(Scripted(script, script)).score([Group(None, [1], [[2], [3]])]).outcomes
    assert [outcome.code if isinstance(outcome, ItemError) else outcome.shape for outcome in outcomes] == [
        (1, 6),
        Code.OUT_OF_MEMORY,
    ]


def test_what_the_ranks_count_is_added_up() -> None:
    phases = [Phase("encode", 1.0, 2.0), Phase("answers", 2.0, 3.0)]
    scored = [Scored([Numbers((1, 1, 6), bytes(24))], Counts(prefix_runs=1, phases=[phase])) for phase in phases]
    backend = Scripted([*scored], [*scored])
    for _ in scored:
        backend.score([ASKED])
    counts = backend.take_counts()
    assert (counts.prefix_runs, counts.phases) == (2, phases)


@pytest.mark.parametrize("other", [None, NUMBERS])
def test_ranks_that_end_differently_are_a_broken_device(
    other: FromRank | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "AGREE_SECONDS", 0.5)
    for answers in ((NO_MEMORY, other), (other, NO_MEMORY)):
        runner = Runner(Scripted(*([WARM, answer] for answer in answers)))
        for _ in range(2):  # and it stays broken
            with pytest.raises(DeviceBroken):
                runner.score([ASKED])


def test_a_rank_that_failed_keeps_nothing(made: Path) -> None:
    """Another may have failed earlier, and would run what this one then need not."""
    backend = opened(made)
    asked = Score([spread._sent(group) for group in groups(FAMILY)])
    answered = [rank._answer(backend, asked, 0) for _ in range(2)]
    failed = rank._answer(backend, Score([spread._sent(Group(None, [1], [[10**6]]))]), 0)
    again = rank._answer(backend, asked, 0)
    assert isinstance(failed, Failed)
    encodes = [answer.counts.image_encodes for answer in (*answered, again) if isinstance(answer, Scored)]
    assert encodes == [2, 0, 2]


def change_text(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= values
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads is 3"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1"),
        ({"intermediate_size": 95}, "intermediate_size is 95"),
    ],
)
def test_what_cannot_be_shared_evenly_is_refused(folder: Path, changed: dict[str, int], why: str) -> None:
    change_text(folder, **changed)
    with pytest.raises(ConfigurationError, match=why):
        config_to_share(folder, 2)


def test_a_language_model_without_a_plan_is_refused(tmp_path: Path) -> None:
    opt = transformers.OPTConfig(**{key: TEXT[key] for key in ("hidden_size", "num_attention_heads", "vocab_size")})
    transformers.LlavaConfig(text_config=opt).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="no plan to share a language model of type opt"):
        config_to_share(tmp_path, 2)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="adapter"):
        config_to_share(folder, 2)


def test_a_refusal_of_the_ranks_is_one_of_the_worker_and_leaves_nothing(made: Path) -> None:
    before = children(os.getpid())
    with pytest.raises(ConfigurationError, match="num_attention_heads is 4, which 3 ranks cannot share evenly"):
        over_two(made, tensor_parallel=3)
    assert children(os.getpid()) == before


def test_a_rank_that_has_no_memory_for_its_part_refuses(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    ours, theirs = Pipe()
    monkeypatch.setattr(rank, "end_with_the_front", lambda: None)
    monkeypatch.setattr("medreward.logs.configure", lambda _: None)
    monkeypatch.setattr(rank, "open_vlm", exhausted)
    monkeypatch.setattr(sys, "argv", ["rank", str(os.dup(theirs.fileno())), "-1", "0", str(os.getppid())])
    manifest = read_manifest(made / "model.toml").model_dump(mode="json")
    with ours, theirs:
        ours.send_bytes(spread._encode(Load(settings().model_dump(mode="json"), manifest, str(made), 0)))
        rank.main()
        answer = spread._from_rank.decode(ours.recv_bytes())
    assert isinstance(answer, Refused)
    assert "no memory for the model" in answer.message


def test_too_few_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match="1 of the 2 CUDA devices"):
        join(RankSeat(0, 2, -1), "cuda")


def test_other_runtimes_are_refused(tiny_folder: Path) -> None:
    for manifest, folder in ((FAKE_MANIFEST, None), (read_manifest(tiny_folder / "model.toml"), tiny_folder)):
        with pytest.raises(ConfigurationError, match="torch_vlm"):
            open_backend(settings(), manifest, folder)


def test_parity_is_refused(made: Path) -> None:
    with pytest.raises(ConfigurationError, match="one device"):
        check_parity(settings(model=str(made)), as_json=True)


@pytest.mark.parametrize(("given", "visible"), [("", "2,3"), ("4,5,GPU-a,GPU-b", "GPU-a,GPU-b")])
def test_each_worker_has_devices_of_its_own(given: str, visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert process_worker._visible(1, 2) == visible
