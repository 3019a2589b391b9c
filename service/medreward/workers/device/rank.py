"""A rank, which is one of the processes that a model is spread over. It holds its part and runs what all others run."""

import logging
import os
import sys
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from medreward import logs
from medreward.artifacts.manifest import Manifest
from medreward.backends.base import Counts, RankSeat
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.workers.device.loading import open_vlm
from medreward.workers.device.runner import loading
from medreward.workers.device.spread import Failed, FromRank, Numbers, Score, Scored, ToRank, group, receive, send
from medreward.workers.frames import Load, Loaded, Refused, Rest, Resume
from medreward.workers.process import end_with_the_front

if TYPE_CHECKING:
    from medreward.backends.torch_vlm.backend import TorchVlmBackend

log = logging.getLogger("medreward.rank")


def main() -> None:
    end_with_the_front()
    pipe_fd, meeting_fd, rank, parent = map(int, sys.argv[1:])
    if os.getppid() != parent:  # it ended before we could be told of its end
        return
    front = Connection(pipe_fd)
    load = receive(front)
    assert isinstance(load, Load)
    assert load.folder
    settings, manifest = Settings(**load.settings), Manifest.model_validate(load.manifest)
    logs.configure(settings.log_level)
    try:
        seat = RankSeat(rank, settings.tensor_parallel, meeting_fd)
        with loading():
            backend = open_vlm(settings, manifest, Path(load.folder), seat)
    except ConfigurationError as error:
        send(front, Refused(str(error)))
        return
    log.debug("rank loaded", extra={"rank": rank, "weight_bytes": backend.weight_bytes})
    send(front, Loaded(backend.runtime, backend.cost))
    serve(front, backend, rank)


def serve(front: Connection, backend: "TorchVlmBackend", rank: int) -> None:
    while True:
        try:
            asked = receive(front)
        except (EOFError, OSError):
            os._exit(0)  # without a clean-up that would wait for the device
        send(front, _answer(backend, asked, rank))


def _answer(backend: "TorchVlmBackend", asked: ToRank, rank: int) -> FromRank:
    """Returns what this rank tells the front. A rank that failed gives back what it keeps."""
    try:
        match asked:
            case Score():
                pass
            case Rest():
                backend.rest()
                return Scored([], Counts())
            case Resume():
                backend.resume()
                return Scored([], Counts())
            case _:
                backend.warm_up()
                return Scored([], backend.take_counts())
        groups = [group(one) for one in asked.groups]
        ids = chain.from_iterable(chain(one.prompt, *one.answers) for one in groups)
        if max(ids, default=0) >= backend.backbone.vocabulary:  # shared embeddings would make zeros of it
            raise IndexError("an id beyond the vocabulary")
        numbers = [Numbers(logits.shape, logits.tobytes()) for logits in backend.score(groups)]
        return Scored(numbers, backend.take_counts())
    except Exception as error:
        log.warning("rank failed", exc_info=True, extra={"rank": rank})
        failed = Failed("out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}")
    # Ranks may have come to different ends between two meetings: nothing of that may stay in caches. One whom another
    # still waits for in the model hangs here, and so is found.
    backend.release()
    return failed


if __name__ == "__main__":
    main()
