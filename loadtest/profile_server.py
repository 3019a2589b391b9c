"""Where a server's time goes under load, per request: samples it with py-spy and adds the samples up by function."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click
from loadtest.bodies import Requests, jpegs
from loadtest.driver import Plan, drive
from loadtest.overhead import CONNECTIONS, chosen, parse_cores, servers
from loadtest.servers import free_port, serving

SAMPLES_PER_SECOND = 200
WAITING = ("Condition.wait ", "Event.wait ", "wait ", "select ", "EpollSelector.select ")  # py-spy cannot always tell


def spent(raw: str) -> tuple[Counter[str], Counter[str]]:
    """Samples in a function itself, and in it and what it called, from lines `outer;inner;innermost count`."""
    itself: Counter[str] = Counter()
    in_all: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1].startswith(WAITING):
            continue
        itself[frames[-1]] += int(count)
        in_all.update(dict.fromkeys(frames, int(count)))
    return itself, in_all


def print_top(title: str, samples: Counter[str], requests: float, seconds: float, top: int) -> None:
    print(f"\n{title}\n{'ms/request':>12} {'of a core':>10}")
    for function, count in samples.most_common(top):
        busy = count / SAMPLES_PER_SECOND
        print(f"{busy * 1000 / requests:>12.4f} {busy / seconds:>10.1%} {function}")


@click.command(help=__doc__)
@click.argument("name", default="medreward single cold")
@click.option("--seconds", default=10, show_default=True)
@click.option("--top", default=30, show_default=True)
@click.option("--server-cores", default="0,1", show_default=True)
@click.option("--py-spy", default="py-spy", show_default=True, help="The program.")
def main(name: str, seconds: int, top: int, server_cores: str, py_spy: str) -> None:
    if not shutil.which(py_spy):
        raise click.UsageError("py-spy is not installed: pip install py-spy")
    cores = parse_cores(server_cores)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - cores)
    (server,) = chosen(servers(sys.executable), name)
    scenario = next(one for one in server.scenarios if one.name == name)
    port = free_port()
    requests = Requests(jpegs(), path=scenario.path, responses=scenario.responses, cold=scenario.cold)
    with (
        serving(server.command(port), f"http://127.0.0.1:{port}{server.ready}", cores) as pid,
        tempfile.NamedTemporaryFile() as raw,
    ):
        record = [py_spy, "record", "--pid", str(pid), "--format", "raw", "--output", raw.name, "--function"]
        record += ["--subprocesses", "--nonblocking", "--rate", str(SAMPLES_PER_SECOND), "--duration", str(seconds)]
        with subprocess.Popen(record, stdout=subprocess.DEVNULL) as sampler:
            report = drive(Plan("127.0.0.1", port, seconds, connections=CONNECTIONS), requests, scenario.check)
            sampler.wait()
        itself, in_all = spent(Path(raw.name).read_text())
    count = report.achieved * seconds
    busy = sum(itself.values()) / SAMPLES_PER_SECOND / seconds
    print(f"{name}: {report.achieved:.0f} requests/s, {busy:.2f} cores busy")
    print_top("in the function itself", itself, count, seconds, top)
    print_top("in the function and what it calls", in_all, count, seconds, top)


if __name__ == "__main__":
    main()
