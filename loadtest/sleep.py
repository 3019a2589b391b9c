"""Whether a server that sleeps and wakes again and again grows: memory and open files of all its processes.

Each cycle scores a fresh triple, sleeps, is refused, wakes, and scores a known triple, whose logits must be the same
every time. The last line is JSON.
"""

import json
import os
from pathlib import Path

import click
import httpx
from loadtest.servers import free_port, medreward_command, serving

HOST = "127.0.0.1"
KNOWN = {"question": "Is there a fracture?", "response": "Yes, of the left sixth rib."}


def usage(pid: int) -> tuple[float, int]:
    """Returns MB (what is shared counts once) and open files of the process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pids = [str(pid), *children]
    pss = [line for of in pids for line in Path(f"/proc/{of}/smaps_rollup").read_text().splitlines()]
    memory = sum(int(line.split()[1]) for line in pss if line.startswith("Pss:")) / 1000
    return memory, sum(len([*Path(f"/proc/{of}/fd").iterdir()]) for of in pids)


@click.command(help=__doc__)
@click.option("--model", default="medreward-mini", show_default=True)
@click.option("--level", default=1, show_default=True)
@click.option("--cycles", default=100, show_default=True)
def main(model: str, level: int, cycles: int) -> None:
    port = free_port()
    command = medreward_command(port)
    admin_port = command[command.index("--admin-port") + 1]
    command += ["--model", model, "--score-cache-bytes", "0"]
    awake, asleep, logits = [], [], set()
    with (
        serving(command, f"http://{HOST}:{port}/readyz", os.sched_getaffinity(0)) as pid,
        httpx.Client(base_url=f"http://{HOST}:{port}", timeout=120) as rest,
        httpx.Client(base_url=f"http://{HOST}:{admin_port}", timeout=120) as admin,
    ):
        for n in range(cycles):
            rest.post("/score", json={**KNOWN, "response": f"Answer {n}."}).raise_for_status()
            admin.post("/admin/sleep", json={"level": level}).raise_for_status()
            asleep.append(usage(pid))
            refused = rest.post("/score", json=KNOWN)
            assert refused.status_code == 503, refused.text
            admin.post("/admin/wake").raise_for_status()
            logits.add(json.dumps(rest.post("/score", json=KNOWN).json()["results"][0]["logits"]))
            awake.append(usage(pid))
    tenth = max(1, cycles // 10)
    figures = {
        "level": level,
        "cycles": cycles,
        "distinct logits of one triple": len(logits),
        "MB awake, second tenth and last tenth": [
            round(sum(mb for mb, _ in part) / len(part), 1) for part in (awake[tenth : 2 * tenth], awake[-tenth:])
        ],
        "MB asleep, last": round(asleep[-1][0], 1),
        "files awake, early and last": [awake[tenth][1], awake[-1][1]],
    }
    for name, value in figures.items():
        print(f"{name:40} {value}")
    print(json.dumps(figures))
    raise SystemExit(0 if len(logits) == 1 else 1)


if __name__ == "__main__":
    main()
