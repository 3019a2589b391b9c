"""`medreward doctor`: what this machine can run, and what is missing."""

import importlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from medreward.cli.extras import install
from medreward.cli.options import json_option, local_options, option
from medreward.cli.show import print_json, print_table
from medreward.cores import available_cores
from medreward.errors import ConfigurationError

if TYPE_CHECKING:  # pydantic is not for a client's install
    from medreward.settings import Settings

GIB: Final = 1024**3
NEEDED: Final = "server"  # the extra that serving takes, beside what every install has
BESIDE: Final = ("cpu", "gpu", "vlm", "parquet")  # looked at where they are installed
SERVER_ADVICE: Final = f"run {install('cpu')} (on a GPU: [gpu] in place of [cpu])"
SHM_BYTES: Final = GIB // 4
ENOUGH_MEMORY: Final = 2 * GIB
CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Literal["ok", "warn", "missing"]
    found: str
    advice: str = ""


@click.command("doctor")
@local_options
@option(
    "--parity",
    is_flag=False,
    flag_value="",
    metavar="[REF]",
    help="compare this VLM here with the same in plain transformers",
)
@json_option
def command(parity: str | None, as_json: bool, **local: Any) -> int:
    """Look at this machine: packages, devices, memory, ports and the default model. Exit 1 if it cannot be served.

    With --parity, score a few phantoms here and in transformers itself. Exit 1 if a logit differs by too much.
    """
    if parity is not None:
        from medreward.cli.parity import check_parity
        from medreward.cli.serve import read_settings

        return check_parity(
            read_settings(**local | {"model": parity or local["model"], "isolation": "inline"}), as_json
        )
    wanted, version = metadata.metadata("medreward")["Requires-Python"], ".".join(map(str, sys.version_info[:3]))
    checks = [check_version("python", version, wanted, f"use Python {wanted}")]
    checks += [*packages(), *devices(), *machine(), *model_and_ports(local)]
    can_serve = all(check.status != "missing" for check in checks)
    if as_json:
        print_json({"can_serve": can_serve, "checks": [asdict(check) for check in checks]})
    else:
        print_table(
            ["check", "status", "found", "what to do"], [[*map(str, asdict(check).values())] for check in checks]
        )
    return int(not can_serve)


def check_version(name: str, version: str, wanted: str, advice: str, is_needed: bool = True) -> Check:
    """Returns whether the version is one of those that are wanted."""
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check(name, "ok", version)
    return Check(name, "missing" if is_needed else "warn", version, advice)


def packages() -> Iterator[Check]:
    """Gives what serving needs, and what else is there of other extras, against the versions that we declare."""
    from packaging.requirements import Requirement

    seen: set[str] = set()
    for requirement in map(Requirement, metadata.requires("medreward") or ()):
        name, wanted = requirement.name, str(requirement.specifier)
        extras = [e for e in (NEEDED, *BESIDE) if not requirement.marker or requirement.marker.evaluate({"extra": e})]
        if not extras or name in seen:
            continue
        seen.add(name)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if NEEDED in extras:
                yield Check(name, "missing", "not installed", SERVER_ADVICE)
        else:
            yield check_version(name, version, wanted, f"pip install '{name}{wanted}'", NEEDED in extras)


def devices() -> Iterator[Check]:
    """Gives the devices that the installed runtimes see."""
    if util.find_spec("onnxruntime"):
        providers = importlib.import_module("onnxruntime").get_available_providers()
        yield Check("onnxruntime providers", "ok", " ".join(providers))
    else:
        yield Check("onnxruntime providers", "warn", "not installed", SERVER_ADVICE)
    if util.find_spec("torch"):
        cuda = importlib.import_module("torch").cuda
        devices = [cuda.get_device_name(n) for n in range(cuda.device_count())] if cuda.is_available() else []
        yield Check("torch devices", "ok", ", ".join(["cpu", *devices]))


def machine() -> Iterator[Check]:
    """Gives cores, memory and shared memory, as far as this container may use them."""
    quota, _, period = _cgroup("cpu.max").partition(" ")
    limit = f", limited to {int(quota) / int(period):g}" if quota.isdigit() and period.isdigit() else ""
    yield Check("cores", "ok", f"{available_cores()}{limit}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = _cgroup("memory.max")
    memory = min(memory, int(allowed)) if allowed.isdigit() else memory
    few = memory < ENOUGH_MEMORY
    yield Check("memory", "warn" if few else "ok", f"{memory / GIB:.1f} GiB", "give it 2 GiB or more" if few else "")
    shared = Path("/dev/shm")  # noqa: S108  # looked at, nothing is written
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        small = size < SHM_BYTES
        advice = "start the container with --shm-size=1g" if small else ""
        yield Check(str(shared), "warn" if small else "ok", f"{size / GIB:.2f} GiB", advice)


def _cgroup(file: str) -> str:
    try:
        return (CGROUP / file).read_text().strip()
    except OSError:
        return ""


def model_and_ports(local: dict[str, Any]) -> Iterator[Check]:
    """Gives whether the model of these settings can be served, and whether its ports are free."""
    try:
        from medreward.cli.serve import read_settings

        settings = read_settings(**local, isolation="inline")
        yield check_model(settings)
    except ModuleNotFoundError as error:
        yield Check("model", "missing", f"{error.name} is not installed", SERVER_ADVICE)
        return
    except ConfigurationError as error:
        yield Check("model", "missing", str(error), "see `medreward models list` and --model")
        return
    doors = {"port": settings.host, "grpc_port": settings.host, "admin_port": settings.admin_host}
    for name, host in doors.items():
        port = getattr(settings, name)
        try:
            socket.create_server((host, port), reuse_port=False).close()
        except OSError as error:
            advice = f"choose another with --{name.replace('_', '-')}"
            yield Check(f"port {port}", "warn", error.strerror or str(error), advice)
        else:
            yield Check(f"port {port}", "ok", "free")


def check_model(settings: "Settings") -> Check:
    """Returns that the model can be served; raises ConfigurationError, with what to do, where it cannot."""
    from medreward.engine.files import open_verified

    if settings.model == "fake":
        return Check("model", "warn", "fake: its numbers mean nothing", "name a model with --model")
    _, manifest = open_verified(settings)
    if manifest.runtime == "onnx" and not util.find_spec("onnxruntime"):
        raise ConfigurationError(f"{manifest.name} needs onnxruntime: {SERVER_ADVICE}")
    if manifest.runtime == "torch_vlm" and not (util.find_spec("torch") and util.find_spec("transformers")):
        raise ConfigurationError(f"{manifest.name} needs torch and transformers: run {install('vlm')}")
    return Check("model", "ok", f"{manifest.name} {manifest.version}, {len(manifest.files)} files verified")
