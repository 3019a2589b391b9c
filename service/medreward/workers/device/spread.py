"""Spreads one model over several devices. Each has a process, its rank, and all of them are asked the same at one time.

A rank that fails alone leaves the others waiting for it inside the model. So ranks have to agree: all have scores, or
all have failed and forgotten what they kept; anything else is a broken device, and the worker with its ranks ends.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import CostModel, Counts, DeviceBroken, Group, Logits, ModelImage
from medreward.cores import available_cores
from medreward.encoding.sizes import Cut
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.types import Runtime
from medreward.workers.frames import Load, Loaded, Refused, Rest, Resume

AGREE_SECONDS: Final = 10.0  # after the first rank's failure, for the others to fail as well


class SentImage(msgspec.Struct, array_like=True):
    """A model image with its pixels, for ranks do not map the shared memory."""

    digest: str
    tenant: str
    shape: tuple[int, ...]
    data: bytes
    cut: Cut | None


class SentGroup(msgspec.Struct, array_like=True):
    images: list[SentImage]
    prompt: list[int]
    answers: list[list[int]]


class Score(msgspec.Struct, tag=True):
    groups: list[SentGroup]


class WarmUp(msgspec.Struct, tag=True):
    pass


class Numbers(msgspec.Struct, array_like=True):
    shape: tuple[int, ...]
    data: bytes  # float32


class Scored(msgspec.Struct, tag=True):
    groups: list[Numbers]
    counts: Counts


class Failed(msgspec.Struct, tag=True):
    message: str


ToRank = Load | Score | WarmUp | Rest | Resume
FromRank = Loaded | Refused | Scored | Failed

_to_rank = msgspec.msgpack.Decoder(ToRank)
_from_rank = msgspec.msgpack.Decoder(FromRank)
_encode = msgspec.msgpack.Encoder().encode


class Spread:
    """A backend that asks the ranks. They end with the thread that opened it."""

    def __init__(self, settings: Settings, manifest: Manifest, folder: Path) -> None:
        self._pipes: list[Connection] = []
        self._ranks: list[subprocess.Popen[bytes]] = []
        threads = settings.threads or max(1, available_cores() // settings.tensor_parallel)
        own = settings.model_copy(update={"threads": threads}).model_dump(mode="json")
        try:
            self._start(settings)
            loaded = self._all(Load(own, manifest.model_dump(mode="json"), str(folder), 0))
        except BaseException:
            self.close()
            raise
        assert isinstance(loaded, Loaded)
        self.runtime: Runtime = loaded.runtime
        self.cost: CostModel = loaded.cost
        self._counts = Counts()

    def score(self, groups: Sequence[Group]) -> list[Logits]:
        scored = self._all(Score([_sent(group) for group in groups]))
        assert isinstance(scored, Scored)
        counts = zip(astuple(self._counts), astuple(scored.counts), strict=True)
        self._counts = Counts(*(before + now for before, now in counts))
        return [np.frombuffer(numbers.data, np.float32).reshape(numbers.shape) for numbers in scored.groups]

    def warm_up(self) -> None:
        self._all(WarmUp())

    def release(self) -> None:
        """Does nothing: a rank frees what it keeps when it fails."""

    def rest(self) -> None:
        self._all(Rest())

    def resume(self) -> None:
        self._all(Resume())

    def take_counts(self) -> Counts:
        counts, self._counts = self._counts, Counts()
        return counts

    @property
    def pids(self) -> list[int]:
        return [rank.pid for rank in self._ranks]

    def close(self) -> None:
        for rank in self._ranks:
            rank.kill()
        for rank in self._ranks:
            rank.wait()
        for pipe in self._pipes:
            pipe.close()

    def _start(self, settings: Settings) -> None:
        ranks = settings.tensor_parallel
        met = os.memfd_create("medreward-ranks")  # where they tell each other their addresses
        variables = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", **os.environ}
        if settings.device == "cpu":
            variables["CUDA_VISIBLE_DEVICES"] = ""  # transformers takes a GPU where it sees one
        try:
            for rank in range(ranks):
                ours, theirs = Pipe()
                self._pipes.append(ours)
                with theirs:
                    fds = (theirs.fileno(), met)
                    command = [
                        sys.executable,
                        "-m",
                        "medreward.workers.device.rank",
                        *map(str, (*fds, rank, os.getpid())),
                    ]
                    self._ranks.append(
                        subprocess.Popen(
                            command,
                            pass_fds=fds,
                            start_new_session=True,
                            stdin=subprocess.DEVNULL,
                            env={**variables, "LOCAL_RANK": str(rank)},
                        )
                    )
        finally:
            os.close(met)

    def _all(self, frame: ToRank) -> FromRank:
        """Sends the frame to all ranks, waits for all of them and returns the answer of the first."""
        try:
            body = _encode(frame)
            for pipe in self._pipes:
                pipe.send_bytes(body)
            answers = self._answers()
        except (OSError, EOFError) as error:
            self.close()
            raise DeviceBroken("a rank ended") from error
        if refused := next((answer for answer in answers if isinstance(answer, Refused)), None):
            raise ConfigurationError(refused.message)
        failed = [answer for answer in answers if isinstance(answer, Failed)]
        if len(failed) == len(self._pipes):
            raise RuntimeError(failed[0].message)
        if failed:
            self.close()
            raise DeviceBroken("ranks did not end alike")
        return answers[0]

    def _answers(self) -> list[FromRank]:
        """Answers in the order of the ranks. Those of ranks that still wait for one that failed are missing."""
        answers: dict[Connection, FromRank] = {}
        patience = None
        while waiting := [pipe for pipe in self._pipes if pipe not in answers]:
            ready: Any = wait(waiting, patience)
            if not ready:
                break
            for pipe in ready:
                answers[pipe] = _from_rank.decode(pipe.recv_bytes())
                if isinstance(answers[pipe], Failed | Refused):
                    patience = AGREE_SECONDS
        return [answers[pipe] for pipe in self._pipes if pipe in answers]


def receive(front: Connection) -> ToRank:
    """Returns what the rank is asked next. Fails with an EOFError when nobody is left to ask."""
    frame: ToRank = _to_rank.decode(front.recv_bytes())
    return frame


def send(front: Connection, frame: FromRank) -> None:
    """Sends the rank's answer."""
    front.send_bytes(_encode(frame))


def group(sent: SentGroup) -> Group:
    """Returns the group as a backend is asked it."""
    images = [
        ModelImage(image.digest, np.frombuffer(image.data, np.uint8).reshape(image.shape), image.tenant, image.cut)
        for image in sent.images
    ]
    return Group(images[0] if images else None, sent.prompt, sent.answers, tuple(images[1:]))


def _sent(group: Group) -> SentGroup:
    images = [
        SentImage(each.digest, each.tenant, each.pixels.shape, each.pixels.tobytes(), each.cut) for each in group.images
    ]
    return SentGroup(images, list(group.prompt), [list(answer) for answer in group.answers])
