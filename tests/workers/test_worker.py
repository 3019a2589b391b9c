from collections.abc import Sequence

import numpy as np

from medreward.backends.base import CostModel, Counts, Group, Logits
from medreward.errors import Code, ItemError
from medreward.workers.worker import InlineWorker


class Moody:
    """Fails on groups whose prompt starts with a negative id."""

    runtime = "moody/cpu/fp32"
    calls = 0
    cost = CostModel()

    def take_counts(self) -> Counts:
        return Counts()

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


async def test_a_group_that_fails_leaves_its_neighbours_their_scores() -> None:
    worker = InlineWorker(Moody)
    await worker.start()
    batch = await worker.score([group(1), group(-1), group(2), group(-2)])
    await worker.close()
    outcomes = [outcome for group in batch.outcomes for outcome in group]
    seen = [outcome.code if isinstance(outcome, ItemError) else float(outcome[0, 0]) for outcome in outcomes]
    assert seen == [1.0, Code.INTERNAL, 2.0, Code.OUT_OF_MEMORY]


async def test_warm_up_reaches_the_backend() -> None:
    backend = Moody()
    worker = InlineWorker(lambda: backend)
    await worker.start()
    await worker.close()
    assert backend.calls == 1
