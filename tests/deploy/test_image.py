"""The images: what each says of itself, what is in it, and that it serves as its user on a root that is read-only.

`make image-test` builds and runs the image `cpu`, `make image-test-all` all four. Both need root, buildah, debootstrap
and strace, and download what the images are made of.
"""

import json
import re
import subprocess
import sys
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import pictures
from commands import CLEAN, MEDREWARD
from deploy.charts import CHART, ROOT
from deploy.images import LOCKS, Image, Workshop, processes
from medreward.types import DIMENSIONS
from traced import SPEAKING, Room

pytestmark = pytest.mark.image

MEBIBYTE = 1024**2
#: What an image may add to its base, in MiB. docs/install.md states what each does add.
LARGEST = {"cpu": 450, "bench": 1100, "vlm-cpu": 1600, "gpu": 6500}
#: All but the first are too large for every run of the CI.
TARGETS = [pytest.param(target, marks=() if target == "cpu" else pytest.mark.large) for target in LOCKS]


def only(*targets: str) -> pytest.MarkDecorator:
    """Runs a test on these images alone."""
    return pytest.mark.parametrize("image", [it for it in TARGETS if it.values[0] in targets], indirect=True)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    workshop = Workshop.open(tmp_path_factory.mktemp("image"))
    yield workshop
    workshop.close()


@pytest.fixture(scope="module", params=TARGETS)
def image(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[Image]:
    with workshop.built(request.param) as image:
        yield image


def test_it_says_what_it_is_and_who_runs_it(image: Image) -> None:
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["medreward"]
    assert config["Cmd"][0] == "serve"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "/opt/healthcheck.py"]
    assert {*config["ExposedPorts"]} == {"8000/tcp", "8001/tcp", "8002/tcp"}
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert labels["base.name"] == "localhost/base"


def test_it_is_small_and_nothing_in_it_builds(image: Image) -> None:
    added = image.added / MEBIBYTE
    print(f"{image.target} adds {added:.0f} MiB to its base")  # noqa: T201  # for docs/install.md; pytest -s shows it
    assert added <= LARGEST[image.target]
    found = image.run("sh", "-c", "for it in cc gcc g++ clang ld as make pip pip3 git curl; do command -v $it; done; :")
    assert found.stdout == ""
    assert not (image.root / "src").exists()
    assert not (image.root / "build").exists()


def test_its_sbom_names_what_is_installed(image: Image) -> None:
    sbom = json.loads((image.root / "opt/medreward/medreward.cdx.json").read_text())
    named = {it["name"]: it["version"] for it in [*sbom["components"], sbom["metadata"]["component"]]}
    code = "from importlib.metadata import *; print(*{f'{it.name}=={it.version}' for it in distributions()}, sep='\\n')"
    installed = image.run("python", "-c", code).stdout.split()
    assert {same(f"{name}=={version}") for name, version in named.items()} == {same(it) for it in installed}
    lock = (ROOT / "deploy" / "locks" / f"{LOCKS[image.target]}.txt").read_text()
    assert {*re.findall(r"^(\S+==\S+)(?: \\$)", lock, re.MULTILINE)} <= {same(it) for it in installed}


def same(requirement: str) -> str:
    """Returns the requirement as locks write it."""
    return re.sub(r"[-_.]+(?=.*==)", "-", requirement.lower())


def test_it_lets_nobody_in_by_itself(image: Image) -> None:
    done = image.run(*image.config["Entrypoint"], *image.config["Cmd"])
    assert done.returncode == 2
    assert "--keys-file" in done.stderr


def test_it_scores_its_golden_triples_and_speaks_to_nobody_else(image: Image, tmp_path: Path) -> None:
    room = Room(tmp_path / "room")
    device = ["--device=cpu"] if image.target == "gpu" else []  # by itself it takes a GPU or stops
    with image.serving(room, *device) as (process, ports):
        smoke = [sys.executable, str(CHART / "files" / "smoke.py"), "--model=medreward-mini", "--no-keys"]
        url = f"--url=http://127.0.0.1:{ports['port']}"
        scored = subprocess.run([*smoke, url], capture_output=True, text=True, timeout=120, check=False)
        assert scored.returncode == 0, scored
        assert scored.stdout.count("golden triple") > 0
        check = [f"MEDREWARD_PORT={ports['port']}", "python", "/opt/healthcheck.py"]
        assert image.run(*check).returncode == 0
        users = {user for user, word in processes() if word.startswith("/opt/medreward/bin/python")}
        assert users == {10001}
    assert process.returncode == 0
    assert image.run(*check).returncode != 0
    assert_silent(room)


def assert_silent(room: Room) -> None:
    """The server wrote JSON lines and spoke to nobody beyond this machine."""
    for line in (room.work / "serve.log").read_text().splitlines():
        json.loads(line)
    spoken = [stray for stray in room.strays() if stray.startswith(SPEAKING)]
    assert not spoken, spoken


def test_its_root_cannot_be_written_to_and_its_cache_can(image: Image) -> None:
    assert image.run("sh", "-c", "echo > /cache/x").returncode == 0
    for place in ("/opt/medreward/x", "/tmp/x", "/x"):  # noqa: S108  # of the image
        assert "Read-only file system" in image.run("sh", "-c", f"echo > {place}").stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision-language model whose files everybody may read, as on a volume."""
    from tiny_vlm import write_tiny  # loads torch

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny(folder)
    for file in (folder, *folder.iterdir()):
        file.chmod(0o755)
    return folder


QUESTION, RESPONSES = "is there a fracture ?", ["no acute fracture is seen", "the heart is enlarged"]


@only("vlm-cpu", "gpu")
def test_it_serves_a_vision_language_model_as_this_machine_does(image: Image, checkpoint: Path, tmp_path: Path) -> None:
    room, picture = Room(tmp_path / "room"), tmp_path / "picture.png"
    picture.write_bytes(pictures.png(1))
    how = ("--device=cpu", "--heads=verbaliser", "--threads=1")
    with image.serving(room, "--model=/mnt", *how, models=checkpoint) as (process, ports):
        users = {user for user, word in processes() if word.startswith("/opt/medreward/bin/python")}
        assert users == {10001}
        item = {"image": b64encode(picture.read_bytes()).decode(), "question": QUESTION, "responses": RESPONSES}
        url = f"http://127.0.0.1:{ports['port']}/v1/score"
        reply = httpx.post(url, json={"items": [item]}, timeout=60)
    assert process.returncode == 0
    assert_silent(room)
    assert reply.status_code == 200, reply.text
    texts = [word for text in RESPONSES for word in ("--response", text)]
    local = ["--image", str(picture), "--question", QUESTION, *texts, "--json"]
    command = [MEDREWARD, "score", "--model", str(checkpoint), "--heads=verbaliser", *local]
    here = subprocess.run(command, capture_output=True, text=True, env=CLEAN, timeout=300, check=True)
    for scored, wanted in zip(reply.json()["results"], json.loads(here.stdout)["results"], strict=True):
        assert scored["status"] == "ok"
        assert [scored["logits"][d] for d in DIMENSIONS] == pytest.approx([wanted["logits"][d] for d in DIMENSIONS])


@only("bench")
def test_it_measures_and_gates_a_server(image: Image, tmp_path: Path) -> None:
    room = Room(tmp_path / "room")
    with image.serving(room) as (_, ports):
        url = f"http://127.0.0.1:{ports['port']}"
        run = f"medreward bench run --data phantom --limit 8 --url {url} --out run && medreward bench report run"
        done = image.run("sh", "-c", f"{run} && cat run/report.html", timeout=300)
        assert done.returncode == 0, done
        assert "</html>" in done.stdout
        gate = ["--candidate=medreward-mini", "--baseline-url", url, "--data=phantom", "--limit=8", "--out=gate"]
        gated = image.run("python", "/opt/gate.py", *gate, "--policy=accuracy-overall", timeout=300)
    assert gated.returncode == 3, gated  # of a limited run nothing is promoted
    assert '"verdict": "undecided"' in gated.stdout


@only("gpu")
def test_its_libraries_are_built_for_cuda_and_it_says_where_there_is_none(image: Image) -> None:
    code = "import onnxruntime, torch; print(torch.version.cuda, *onnxruntime.get_available_providers())"
    built = image.run("python", "-c", code).stdout.split()
    assert built[0].startswith("13."), built
    assert "CUDAExecutionProvider" in built
    # The libraries that it names at the link are found among Python's packages; the driver's is the machine's.
    code = "import onnxruntime; onnxruntime.preload_dlls()"
    assert image.run("python", "-c", code).stdout == ""
    done = image.run("medreward", "serve", "--device=cuda", "--port=0", "--grpc-port=0", "--admin-port=0")
    assert done.returncode == 2, done
    assert "cuda" in done.stderr.lower()


@only("vlm-cpu")
def test_torch_is_the_build_for_a_processor(image: Image) -> None:
    """pip took what this machine's settings offer: see PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS in docs/install.md."""
    assert image.run("python", "-c", "import torch; print(torch.version.cuda)").stdout == "None\n"
