"""What serving costs: MedReward with a model that costs nothing, beside the least that Python servers can do.

Every server gets the same two cores, the generator the others. Prints a table and, as its last line, JSON.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
from loadtest.bodies import Requests, constant_check, jpegs, medreward_check
from loadtest.driver import Check, Plan, Report, drive
from loadtest.servers import ServerError, free_port, medreward_command, serving

CONNECTIONS = 32
RAY_AT_ITS_BEST = ("RAY_SERVE_THROUGHPUT_OPTIMIZED=1", "RAY_SERVE_ENABLE_HA_PROXY=1")
OURS = ("medreward", "fastapi", "uvicorn", "pillow")


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    check: Check
    path: str = "/score"
    responses: int = 1
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    command: Callable[[int], Sequence[str]]  # of the port
    scenarios: tuple[Scenario, ...]
    ready: str = "/readyz"
    needs: str | None = None  # a package that the peers' Python may lack


@dataclass(slots=True)
class Row:
    """The rounds of one scenario."""

    scenario: Scenario
    loaded: list[Report] = field(default_factory=list)
    alone: list[Report] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(one.achieved for one in self.loaded)

    @property
    def p50_alone(self) -> float:
        return statistics.median(one.p50_ms for one in self.alone)


def servers(peers_python: str) -> list[Server]:
    bare = [sys.executable, "-m", "uvicorn", "loadtest.bare:app", "--loop", "uvloop", "--http", "httptools"]
    bare += ["--no-access-log", "--log-level", "warning", "--port"]
    single, group = medreward_check(1), medreward_check(8)
    return [
        Server(
            lambda port: [sys.executable, "-m", "loadtest.sink", str(port)],
            (Scenario("generator's ceiling", constant_check),),
        ),
        Server(
            lambda port: [*bare, str(port)],
            (
                Scenario("bare inline", constant_check, "/inline"),
                Scenario("bare threads", constant_check, "/threads"),
            ),
        ),
        Server(
            lambda port: [*bare, str(port), "--workers", "2"],
            (Scenario("2 x bare inline", constant_check, "/inline"),),
        ),
        Server(
            lambda port: [peers_python, "-m", "loadtest.peer_litserve", str(port)],
            (Scenario("litserve", constant_check),),
            ready="/health",
            needs="litserve",
        ),
        Server(
            lambda port: [peers_python, "-m", "loadtest.peer_ray", str(port)],
            (Scenario("ray serve", constant_check),),
            needs="ray",
        ),
        Server(
            lambda port: ["env", *RAY_AT_ITS_BEST, peers_python, "-m", "loadtest.peer_ray", str(port)],
            (Scenario("ray serve tuned", constant_check),),
            needs="ray",
        ),
        Server(
            medreward_command,
            (
                Scenario("medreward single", single),
                Scenario("medreward single cold", single, cold=True),
                Scenario("medreward group", group, responses=8),
                Scenario("medreward group cold", group, responses=8, cold=True),
            ),
        ),
    ]


def version(python: str, package: str) -> str:
    """Empty where it is not installed."""
    script = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    found = subprocess.run([python, "-c", script, package], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def peer_versions(python: str, to_run: list[Server]) -> dict[str, str]:
    versions = {}
    for package in dict.fromkeys(server.needs for server in to_run if server.needs):
        if found := version(python, package):
            versions[package] = found
        else:
            print(f"{package}: skipped, not installed")
    return versions


def chosen(all_servers: list[Server], only: str) -> list[Server]:
    words = only.split(",")
    kept = []
    for server in all_servers:
        scenarios = tuple(one for one in server.scenarios if any(word.strip() in one.name for word in words))
        if scenarios:
            kept.append(replace(server, scenarios=scenarios))
    return kept


def measure(server: Server, images: list[bytes], cores: set[int], seconds: float, rows: dict[str, Row]) -> None:
    port = free_port()
    with serving(server.command(port), f"http://127.0.0.1:{port}{server.ready}", cores):
        for scenario in server.scenarios:
            loaded = one_run(scenario, port, images, CONNECTIONS, seconds)
            alone = one_run(scenario, port, images, 1, seconds / 2)
            row = rows.setdefault(scenario.name, Row(scenario))
            row.loaded.append(loaded)
            row.alone.append(alone)


def one_run(scenario: Scenario, port: int, images: list[bytes], connections: int, seconds: float) -> Report:
    requests = Requests(images, path=scenario.path, responses=scenario.responses, cold=scenario.cold)
    return drive(Plan("127.0.0.1", port, seconds, connections=connections), requests, scenario.check)


def best_bare(rows: dict[str, Row]) -> tuple[float, float] | None:
    """Rate and time alone, each of the better of the two ways to write the bare handler."""
    bare = [row for name, row in rows.items() if name.startswith("bare") and row.rate]
    return (max(row.rate for row in bare), min(row.p50_alone for row in bare)) if bare else None


@dataclass(frozen=True, slots=True)
class Summary:
    name: str
    requests_per_s: float
    spread: tuple[float, float]
    ratio_to_bare: float | None
    triples_per_s: float
    p50_alone_ms: float
    over_bare_ms: float | None
    p50_loaded_ms: float
    p99_loaded_ms: float
    generator_busy: float
    statuses: dict[int, int]
    wrong: int
    clean: bool


def summarise(row: Row, bare: tuple[float, float] | None) -> Summary:
    reports = row.loaded + row.alone
    rates = [one.achieved for one in row.loaded]
    return Summary(
        name=row.scenario.name,
        requests_per_s=round(row.rate, 1),
        spread=(round(min(rates), 1), round(max(rates), 1)),
        ratio_to_bare=round(row.rate / bare[0], 3) if bare else None,
        triples_per_s=round(row.rate * row.scenario.responses, 1),
        p50_alone_ms=round(row.p50_alone, 3),
        over_bare_ms=round(row.p50_alone - bare[1], 3) if bare else None,
        p50_loaded_ms=round(statistics.median(one.p50_ms for one in row.loaded), 2),
        p99_loaded_ms=round(statistics.median(one.p99_ms for one in row.loaded), 2),
        generator_busy=round(max(one.generator_busy or 0 for one in row.loaded), 2),
        statuses=dict(sum((Counter(one.statuses) for one in reports), Counter())),
        wrong=sum(one.wrong for one in reports),
        clean=all(one.clean for one in reports),
    )


COLUMNS = {
    "req/s": "requests_per_s",
    "lowest..highest": "spread",
    "x bare": "ratio_to_bare",
    "triples/s": "triples_per_s",
    "p50 alone ms": "p50_alone_ms",
    "over bare ms": "over_bare_ms",
    "p50 at 32 ms": "p50_loaded_ms",
    "p99 at 32 ms": "p99_loaded_ms",
    "gen. busy": "generator_busy",
}


def print_table(table: list[Summary], versions: dict[str, str]) -> None:
    print(f"{'server':<24}" + "".join(f"{heading:>16}" for heading in COLUMNS))
    for line in table:
        label = f"{line.name} {versions.get(line.name.split()[0], '')}"
        cells = "".join(f"{_cell(getattr(line, column)):>16}" for column in COLUMNS.values())
        print(f"{label:<24}{cells}" + ("" if line.clean else f"  NOT CLEAN: {line.statuses}, {line.wrong} wrong"))


def _cell(value: float | tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value[0]:.0f}..{value[1]:.0f}" if isinstance(value, tuple) else str(value)


def parse_cores(text: str) -> set[int]:
    cores = {int(core) for core in text.split(",")}
    if not cores < os.sched_getaffinity(0):
        raise click.BadParameter("this machine must have these cores and at least one more for the generator")
    return cores


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, help="Times each server is started and measured, in turn.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of a measurement with 32 connections.")
@click.option("--only", default="", help="Rows to measure: words of their names, such as bare,medreward single.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the JSON line there.")
@click.option("--server-cores", default="0,1", show_default=True)
@click.option("--peers-python", default=sys.executable, help="A Python that has the peers (litserve, ray) installed.")
def main(rounds: int, seconds: float, only: str, json_file: Path | None, server_cores: str, peers_python: str) -> None:
    cores = parse_cores(server_cores)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - cores)
    to_run = chosen(servers(peers_python), only)
    versions = peer_versions(peers_python, to_run)
    images = jpegs()
    rows: dict[str, Row] = {}
    failed = False
    for server in [one for _ in range(rounds) for one in to_run if one.needs is None or one.needs in versions]:
        try:
            measure(server, images, cores, seconds, rows)
        except (ServerError, OSError) as error:
            failed = True
            print(f"{server.scenarios[0].name}: {error}")
    bare = best_bare(rows)
    table = [summarise(row, bare) for row in rows.values()]
    print_table(table, versions)
    setup = {
        "benchmark": "overhead",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "server_cores": sorted(cores),
        "rounds": rounds,
        "seconds": seconds,
        "connections": CONNECTIONS,
        "image_bytes": round(statistics.mean(map(len, images))),
        "versions": {name: version(sys.executable, name) for name in OURS} | versions,
    }
    line = json.dumps({**setup, "rows": [asdict(one) for one in table]})
    print(line)
    if json_file:
        json_file.write_text(line + "\n")
    raise SystemExit(1 if failed or not all(one.clean for one in table) else 0)


if __name__ == "__main__":
    main()
