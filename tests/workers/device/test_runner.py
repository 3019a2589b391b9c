import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from medreward.backends.base import CostModel, Counts, DeviceBroken, Group, Logits
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.types import Runtime
from medreward.workers.device.child import serve
from medreward.workers.device.runner import Runner
from medreward.workers.device.worker import InlineWorker
from medreward.workers.frames import GroupFrame, Run
from medreward.workers.memory import PixelMemory, anonymous_memory

MEMORY = PixelMemory(anonymous_memory(3))


class Moody:
    """Fails on groups whose prompt starts with a negative id."""

    runtime = Runtime("moody", "cpu", "fp32")
    calls = 0
    cost = CostModel()

    def take_counts(self) -> Counts:
        return Counts()

    def release(self) -> None:
        pass

    def rest(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        self.calls += 1
        for group in groups:
            if group.prompt[0] == -1:
                raise RuntimeError
            if group.prompt[0] == -2:
                raise MemoryError
        return [np.full((len(group.answers), 1, 6), group.prompt[0], np.float32) for group in groups]

    def warm_up(self) -> None:
        self.score([Group(None, (1,), ((1,),))])


def group(n: int) -> Group:
    return Group(None, (n,), ((1,),))


def frame(n: int) -> GroupFrame:
    return GroupFrame([], (n,), ((1,),))


async def test_a_group_that_fails_leaves_its_neighbours_their_scores() -> None:
    worker = InlineWorker(Moody, MEMORY)
    await worker.start()
    batch = await worker.score([frame(1), frame(-1), frame(2), frame(-2)])
    await worker.close()
    outcomes = [outcome for group in batch.outcomes for outcome in group]
    seen = [outcome.code if isinstance(outcome, ItemError) else float(outcome[0, 0]) for outcome in outcomes]
    assert seen == [1.0, Code.INTERNAL, 2.0, Code.OUT_OF_MEMORY]


async def test_warm_up_reaches_the_backend() -> None:
    backend = Moody()
    worker = InlineWorker(lambda: backend, MEMORY)
    await worker.start()
    await worker.close()
    assert backend.calls == 1


async def test_a_model_that_does_not_fit_the_device_is_a_refusal() -> None:
    def none() -> Moody:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    class Full(Moody):
        def warm_up(self) -> None:
            raise MemoryError

    for opened in (none, Full):
        with pytest.raises(ConfigurationError, match="no memory for the model with one triple about its largest image"):
            await InlineWorker(opened, MEMORY).start()


async def test_a_device_that_breaks_while_it_loads_is_a_refusal() -> None:
    def broken() -> Moody:
        raise DeviceBroken("a rank ended")

    with pytest.raises(ConfigurationError, match="a rank ended"):
        await InlineWorker(broken, MEMORY).start()


class Cramped(Moody):
    """Has memory for two answers at a time, and none for an answer that is 99."""

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        answers = [answer for group in groups for answer in group.answers]
        if len(answers) > 2 or (99,) in answers:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().score(groups)


def test_what_does_not_fit_is_halved_and_only_what_never_fits_fails() -> None:
    done = Runner(Cramped()).score([group(1), Group(None, (2,), [(n,) for n in (1, 2, 99, 4, 5)])])
    seen = [[o.code if isinstance(o, ItemError) else float(o[0, 0]) for o in outcomes] for outcomes in done.outcomes]
    assert seen == [[1.0], [2.0, 2.0, Code.OUT_OF_MEMORY, 2.0, 2.0]]


class Activations:
    """What an attempt takes."""


class Forgetful(Moody):
    """Remembers what the last attempt took, as its memory does; keeps something in a cache until it is released."""

    def __init__(self) -> None:
        self.last: weakref.ref[Activations] | None = None
        self.cached = True

    def release(self) -> None:
        self.cached = False

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        if self.last and self.last():
            raise RuntimeError("the attempt before still holds its memory")
        taken = Activations()
        self.last = weakref.ref(taken)
        if self.cached and groups[0].prompt != (1,):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().score(groups)


@pytest.mark.parametrize("groups", [[group(2)], [group(2), group(3)], [Group(None, (2,), [(1,), (2,)])]])
def test_before_a_batch_is_tried_again_memory_is_given_back(groups: list[Group]) -> None:
    gc.disable()  # nothing may wait for it
    try:
        done = Runner(Forgetful()).score(groups)
    finally:
        gc.enable()
    assert not [o for outcomes in done.outcomes for o in outcomes if isinstance(o, ItemError)]


class Greedy(Moody):
    """Asks for petabytes where there are two answers."""

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        if len(groups[0].answers) > 1:
            torch.empty(10**15)
        return super().score(groups)


def test_an_allocation_that_fails_in_torch_on_a_cpu_is_known_for_what_it_is() -> None:
    [outcomes] = Runner(Greedy()).score([Group(None, (2,), [(1,), (2,)])]).outcomes
    assert [outcome[0, 0] for outcome in outcomes if not isinstance(outcome, ItemError)] == [2.0, 2.0]


class Broken(Moody):
    def score(self, groups: Sequence[Group]) -> list[Logits]:
        if self.calls:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().score(groups)


def test_a_device_that_is_broken_is_not_tried_again() -> None:
    backend = Broken()
    runner = Runner(backend)
    with pytest.raises(DeviceBroken):
        runner.score([group(1), group(2)])
    assert backend.calls == 1


def test_a_worker_process_whose_device_is_broken_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Exception):
        pass

    def leave(code: int) -> None:
        raise Gone(code)

    monkeypatch.setattr("medreward.workers.device.child.os._exit", leave)
    front = Asking([Run([frame(1)])])
    with pytest.raises(Gone, match="70"):
        serve(front, Runner(Broken()), MEMORY)
    assert front.sent == []


class Asking:
    """The front's end, from which frames come."""

    def __init__(self, frames: list[Run]) -> None:
        self.frames = frames
        self.sent: list[object] = []

    def receive(self) -> Run:
        if not self.frames:
            raise EOFError
        return self.frames.pop(0)

    def send(self, frame: object) -> None:
        self.sent.append(frame)
