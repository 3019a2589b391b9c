"""What a real model loses by being served: triples/s over REST beside the same backend in a bare loop.

Both get the same cores, texts and images, encoded anew for every request. Prints a table; the last line is JSON.
"""

import json
import os
import statistics
import time
from pathlib import Path

import click
from loadtest.bodies import Requests, jpegs, medreward_check
from loadtest.driver import Plan, drive
from loadtest.overhead import parse_cores
from loadtest.servers import free_port, medreward_command, serving

from medreward.artifacts.repository import bundled_models
from medreward.backends.base import Group, ModelImage
from medreward.encoding.image import decode, probe
from medreward.engine.limits import image_limits
from medreward.engine.model import open_model
from medreward.settings import Settings
from medreward.types import Options, TooLong
from medreward.workers.device.loading import open_backend

GROUPS = (1, 8)
UNCACHED = [word for cache in ("feature", "prefix", "score") for word in (f"--{cache}-cache-bytes", "0")]
CUT = Options(too_long=TooLong.CUT_MIDDLE)


class Bare:
    """The backend and inputs that are ready for it: decoded pixels, token ids."""

    def __init__(self, folder: Path, images: list[bytes], cores: int, responses: int) -> None:
        settings = Settings(model=str(folder), threads=cores, feature_cache_bytes=0, prefix_cache_bytes=0)
        model = open_model(settings)
        self._backend = open_backend(settings, model.manifest, model.folder)
        self._backend.warm_up()
        asked = Requests(images, responses=responses)
        self._groups = []
        for place, image in enumerate(images):
            prompt = model.text.prompt(asked.questions[place].decode(), has_image=True)
            answers = [model.text.answer(prompt, asked.response(place, n).decode(), CUT).ids for n in range(responses)]
            header = probe(image, image_limits(settings))
            pixels = decode(image, header, model.image.of(header.width, header.height))
            self._groups.append(Group(ModelImage(str(place), pixels), prompt.ids, answers))

    def rate(self, seconds: float) -> float:
        """Triples/s, all images in one call, so that no core ever waits."""
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            done += sum(map(len, self._backend.score(self._groups)))
        return done / (time.perf_counter() - began)

    def burst(self) -> dict[str, float]:
        """Seconds, and CPU seconds, for all images once."""
        began, used = time.perf_counter(), time.process_time()
        self._backend.score(self._groups)
        return {"loop s": time.perf_counter() - began, "loop CPU s": time.process_time() - used}


def served(
    folder: Path, images: list[bytes], cores: set[int], responses: int, seconds: float, connections: int
) -> float:
    port = free_port()
    command = [*medreward_command(port), "--model", str(folder), *UNCACHED]
    requests = Requests(images, responses=responses)
    with serving(command, f"http://127.0.0.1:{port}/readyz", cores):
        report = drive(Plan("127.0.0.1", port, seconds, connections=connections), requests, medreward_check(responses))
    if not report.clean:
        raise click.ClickException(f"not every answer was right: {report}")
    return report.achieved * responses


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=bundled_models() / "medreward-mini")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=8.0, show_default=True)
@click.option("--server-cores", default="0,1,2", show_default=True, help="For the loop and for the server.")
@click.option("--connections", default=32, show_default=True, help="One core needs 8 to answer them all in the time.")
def main(folder: Path, rounds: int, seconds: float, server_cores: str, connections: int) -> None:
    cores, every = parse_cores(server_cores), os.sched_getaffinity(0)
    images = jpegs(64)
    rates: dict[tuple[str, int], list[float]] = {}
    for responses in GROUPS:
        os.sched_setaffinity(0, cores)
        bare = Bare(folder, images, len(cores), responses)
        for _ in range(rounds):
            os.sched_setaffinity(0, cores)
            rates.setdefault(("bare", responses), []).append(bare.rate(seconds))
            os.sched_setaffinity(0, every - cores)
            rates.setdefault(("served", responses), []).append(
                served(folder, images, cores, responses, seconds, connections)
            )
    median = {key: statistics.median(values) for key, values in rates.items()}
    for (name, responses), values in rates.items():
        share = median[name, responses] / median["bare", responses]
        print(f"{name:>7}, groups of {responses}: {median[name, responses]:7.1f} triples/s ({min(values):.1f} to "
              f"{max(values):.1f}), {share:.2f} of the loop")  # fmt: skip
    print(json.dumps({"benchmark": "model", **{f"{name}_{n}": round(rate, 1) for (name, n), rate in median.items()}}))


if __name__ == "__main__":
    main()
