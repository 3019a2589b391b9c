"""`medreward score-file --ray`: the same output as without it, made by actors of Ray Data on many machines.

Each piece of the input becomes a part beside the output, written in one step by the actor that scored it. So whatever
is killed, no more than the piece that an actor was at is scored again.
"""

import asyncio
import io
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from medreward.cli.extras import install
from medreward.cli.in_process import EngineTransport
from medreward.cli.output import RunRecord, claim, has_failed, write_parquet
from medreward.cli.pieces import Input, Piece, open_place
from medreward.cli.rows import SUFFIXES
from medreward.cli.score_file import Job
from medreward.cli.serve import read_settings
from medreward.cli.show import progress_bar
from medreward.clients import AsyncClient, Patience
from medreward.errors import ConfigurationError
from medreward.scale.summary import Summary

T = TypeVar("T")
NOT_SHARED: Final = "OUT must be in object storage, or on a disk that all nodes of the Ray cluster share"


@dataclass(frozen=True, slots=True)
class Asked:
    """What each actor is told: from where to where, with which model and options."""

    source: str
    target: str
    local: Mapping[str, Any]  # settings of the model
    options: Mapping[str, Any]  # of each call: weights, too_long, thinking, steps, viewpoint
    concurrency: int
    retry_seconds: float
    batch_rows: int


class Parts:
    """The parts of one run, in a folder beside the output that is named after all that decides what is in them."""

    def __init__(self, asked: Asked, record: RunRecord) -> None:
        self._files, path = open_place(asked.target)
        run = sha256(json.dumps([asked.batch_rows, asdict(record)]).encode()).hexdigest()[:16]
        self.record, self.run = record, run
        self._summary = f"{path}.summary.json"
        self._parent = f"{path}.parts"
        self._folder = f"{self._parent}/{run}"
        self._is_local = "://" not in asked.target

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:08d}.jsonl"

    def summary(self) -> dict[str, Any] | None:
        """Returns the summary of the output where this run has finished it, else None."""
        try:
            with self._files.open_input_stream(self._summary, compression=None) as file:
                summary = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return summary if isinstance(summary, dict) and summary.get("run") == self.run else None

    def has(self, number: int) -> bool:
        from pyarrow import fs

        is_file: bool = self._files.get_file_info(self._path(number)).type == fs.FileType.File
        return is_file

    def write(self, number: int, lines: bytes) -> None:
        """Writes a part in one step: it is there with all of its lines, or not at all."""
        self._files.create_dir(self._folder, recursive=True)
        path = self._path(number)
        draft = f"{path}.tmp" if self._is_local else path  # an object is there when it was written to its end
        with self._files.open_output_stream(draft, compression=None) as file:
            file.write(lines)
        if self._is_local:
            self._files.move(draft, path)

    def lines(self, numbers: range) -> Iterator[bytes]:
        """Gives the lines of all parts. Raises ConfigurationError where a part is not there."""
        for number in numbers:
            try:
                with self._files.open_input_stream(self._path(number), compression=None) as file:
                    yield from io.BytesIO(file.read())
            except FileNotFoundError:
                raise ConfigurationError(f"part {number} of the output is not there; {NOT_SHARED}") from None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary, which says that the output is whole, and deletes the parts."""
        with self._files.open_output_stream(self._summary, compression=None) as file:
            file.write(json.dumps(summary, indent=2).encode() + b"\n")
        self._files.delete_dir(self._parent)


class Scorer:
    """An actor: it keeps the model, and scores the pieces that it is given. Ray Data calls it with columns."""

    def __init__(self, asked: Asked) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._input = Input(asked.source)
        self._run(self._open(asked))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self, asked: Asked) -> None:
        settings = read_settings(**asked.local)
        # Processes of its own for the model and for images: a file that crashes them is its row's error.
        transport = await EngineTransport.start(settings, "process")
        patience = Patience(asked.retry_seconds)
        client = AsyncClient(
            transport, timeout=settings.deadline_seconds, patience=patience, concurrency=asked.concurrency
        )
        model = await client.pin_model()
        self._model = model.as_json()
        self._record = RunRecord(self._input.digest(), model.fingerprint, model.runtime.dtype, **asked.options)
        self._parts = Parts(asked, self._record)
        self._is_finished = self._parts.summary() is not None
        self._job = Job(Path(asked.source), asked.options, asked.concurrency, client)

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Writes the part of each piece that has none yet; returns the pieces' rows and which run they belong to."""
        pieces = [Piece(*values) for values in zip(*(columns[name].tolist() for name in Piece.__slots__), strict=True)]
        for piece in pieces:
            if not self._is_finished and not self._parts.has(piece.number):
                self._parts.write(piece.number, self._run(self._score(piece)))
        about = json.dumps(asdict(self._record))
        return {"rows": [piece.rows for piece in pieces], "record": [about] * len(pieces)}

    async def _score(self, piece: Piece) -> bytes:
        rows = [{**row, "model": self._model} async for row in self._job.results(iter(self._input.read(piece)))]
        return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def seen_from_a_node(place: str | None) -> Any:
    """Returns a path as an actor finds it, which runs in another folder; URIs and names of models stay as they are."""
    if place is None or "://" in place or not (Path(place).exists() or place.endswith(SUFFIXES)):
        return place
    return str(Path(place).absolute())


def score_on_ray(address: str, actors: int | None, asked: Asked) -> dict[str, Any]:
    """Scores the input on the Ray cluster at `address` and returns a summary of the output, which it also writes
    beside it. Raises ConfigurationError where the run cannot go on; started again, it goes on where it stopped."""
    if not asked.target.endswith(SUFFIXES):
        raise click.UsageError("OUT must end in .jsonl or in .parquet")
    try:
        from medreward.scale.batch import connected, device_of, results, room_for
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigurationError(f"--ray needs Ray, which is not installed; run {install('ray')}") from None
    pieces = list(Input(asked.source).pieces(asked.batch_rows))
    if not pieces:
        raise ConfigurationError(f"{asked.source} has no rows")
    total, done, record = sum(piece.rows for piece in pieces), 0, ""
    settings = read_settings(**asked.local)
    asked = replace(asked, local=settings.model_dump())  # an actor has another environment
    with connected(address), progress_bar("rows") as advance:
        device = device_of(settings.device, settings.threads, settings.tensor_parallel)
        most = actors or room_for(device, settings.threads)
        for scored in results(Scorer, asked, [asdict(piece) for piece in pieces], device, most):
            if record != scored["record"]:
                record = check_record(asked.target, record, scored["record"])
            done += scored["rows"]
            advance(done, total)
    parts = Parts(asked, RunRecord(**json.loads(record)))
    if (finished := parts.summary()) is not None:
        return finished
    summary = {"run": parts.run, **write_output(asked, parts.record, parts.lines(range(len(pieces)))).as_json()}
    parts.finish(summary)
    return summary


def check_record(target: str, before: str, record: str) -> str:
    """Returns the run that an actor works for. Raises ConfigurationError where it is not that of the others, or of the
    output that is there."""
    if before:
        raise ConfigurationError("two actors have different models: give every node the same files of the model")
    if "://" not in target:
        claim(Path(target), RunRecord(**json.loads(record)))
    return record


def write_output(asked: Asked, record: RunRecord, lines: Iterator[bytes]) -> Summary:
    """Writes the parts' lines as one output, in their order, and returns what is in it."""
    summary = Summary()

    def counted() -> Iterator[bytes]:
        for line in lines:
            row = json.loads(line)
            summary.add(row, failed=has_failed(row))
            yield line

    files, path = open_place(asked.target)
    draft = path if "://" in asked.target else f"{path}.tmp"
    with files.open_output_stream(draft, compression=None) as file:
        if path.endswith(".parquet"):
            write_parquet(map(json.loads, counted()), file, Input(asked.source).id_type(), record)
        else:
            for line in counted():
                file.write(line)
    if draft != path:
        files.move(draft, path)
    return summary
