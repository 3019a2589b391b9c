"""What runs in the chart's other containers, by their very commands: the download, the probe, `helm test`."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commands import serving
from deploy.certificates import mount, mutual, write_certificates
from deploy.charts import Manifest, only, rendered, server, value_set
from deploy.running import run_container
from keyring import KeysFile

FILES = {"/model.toml": b'name = "new"', "/vision/image.onnx": b"\x00" * 3_000_000}


class Store(ThreadingHTTPServer):
    """A store of files that wants a header, sends `/moved…` elsewhere, and remembers who asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Shelf)
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Shelf(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["authorization"]))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        body = FILES.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the library
        pass


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def listed(store: Store, prefix: str = "", **digests: str) -> list[dict[str, str]]:
    return [
        {
            "path": path.lstrip("/"),
            "url": f"{store.url}{prefix}{path}",
            "sha256": digests.get("digest", hashlib.sha256(body).hexdigest()),
        }
        for path, body in FILES.items()
    ]


def fetch(files: list[dict[str, str]], root: Path, verb: str = "Job") -> tuple[int, str]:
    """Runs the download Job, or the server's wait for it."""
    manifests = rendered(
        model={"source": "download", "ref": "new", "download": {"files": files, "authorizationSecret": "store"}}
    )
    made = next(it for it in manifests if it["kind"] == verb)["spec"]["template"]["spec"]
    container = made["containers" if verb == "Job" else "initContainers"][0]
    done = run_container(manifests, made, container, root, {"DOWNLOAD_AUTHORIZATION": "Bearer token"})
    return done.returncode, done.stdout + done.stderr


def test_a_model_is_downloaded_once(store: Store, tmp_path: Path) -> None:
    files = listed(store)
    code, said = fetch(files, tmp_path)
    assert code == 0, said
    for path, body in FILES.items():
        assert (tmp_path / "models/new" / path.lstrip("/")).read_bytes() == body
    assert store.asked == [(path, "Bearer token") for path in FILES]
    code, said = fetch(files, tmp_path)
    assert (code, len(store.asked)) == (0, 2)
    assert "nothing to download" in said
    assert fetch(files, tmp_path, "Deployment")[0] == 0  # the server's pod waits no longer


def test_a_file_with_another_digest_is_not_installed(store: Store, tmp_path: Path) -> None:
    code, said = fetch(listed(store, digest="0" * 64), tmp_path)
    assert code == 1
    assert f"has sha256 {hashlib.sha256(FILES['/model.toml']).hexdigest()}, not {'0' * 64}" in said
    assert [*(tmp_path / "models").iterdir()] == []


def test_a_file_that_is_not_there_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    files = [*listed(store), {"path": "x", "url": f"{store.url}/none", "sha256": "0" * 64}]
    code, said = fetch(files, tmp_path)
    assert code == 1
    assert "could not be downloaded" in said
    assert [*(tmp_path / "models").iterdir()] == []


def test_a_folder_is_never_filled_with_other_files(store: Store, tmp_path: Path) -> None:
    assert fetch(listed(store), tmp_path)[0] == 0
    for verb in ("Job", "Deployment"):
        code, said = fetch(listed(store)[:1], tmp_path, verb)
        assert code == 1
        assert "give the new model another model.ref" in said


def test_what_opens_the_store_is_not_sent_on(store: Store, tmp_path: Path) -> None:
    assert fetch(listed(store, "/moved"), tmp_path)[0] == 0
    sent = dict(store.asked)
    assert sent["/moved/model.toml"] == "Bearer token"
    assert sent["/model.toml"] is None


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.slow
def test_a_probe_shows_its_certificate(certificates: Path, tmp_path: Path) -> None:
    manifests = value_set("mtls")
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    with serving(tmp_path, *mutual(certificates)) as served:
        url = served.url.replace("http://", "https://")

        def probe(who: str, path: str) -> int:
            container: Manifest = {**server(manifests), "args": [], "env": []}
            container["command"] = container["readinessProbe"]["exec"]["command"]
            container["command"] = [word.replace("/readyz", path) for word in container["command"]]
            root = tmp_path / f"{who}{path.replace('/', '-')}"
            mount(certificates, root, who)
            done = run_container(manifests, pod, container, root, replacing=("https://127.0.0.1:8000", url))
            return done.returncode

        assert probe("client", "/readyz") == 0
        assert probe("stranger", "/readyz") != 0
        assert probe("client", "/v1/none") != 0


def smoke(root: Path, url: str, key: str, **values: Any) -> tuple[int, str]:
    """Runs the pod of `helm test`."""
    manifests = rendered(**values)
    pod = only(manifests, "Pod", "one-medreward-test")["spec"]
    scheme = "https" if values.get("tls__existingSecret") else "http"
    replacing = f"{scheme}://one-medreward.ns.svc:8000", url
    done = run_container(manifests, pod, pod["containers"][0], root, {"MEDREWARD_KEY": key}, replacing)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_helm_test_passes_on_the_server_that_the_values_describe(tmp_path: Path) -> None:
    keys = KeysFile(tmp_path / "keys.jsonl")
    key = keys.new()
    flags = "--model", "medreward-mini", "--threads", "1", "--keys-file", str(keys.path)
    with serving(tmp_path, *flags) as served:
        code, said = smoke(tmp_path, served.url, key)
        assert code == 0, said
        assert "a wrong key: 401" in said
        assert said.count("golden triple") >= 2
        other = f"sha256:{'0' * 64}"
        code, said = smoke(tmp_path, served.url, key, model__fingerprint=other)
        assert code == 1
        assert f"FAILED: the values say {other}" in said
        assert smoke(tmp_path, served.url, "mr_0000000000000000_no")[0] == 1


@pytest.mark.slow
def test_helm_test_fails_on_another_server(certificates: Path, tmp_path: Path) -> None:
    """Another model, behind no keys, with TLS."""
    own = certificates / "server"
    with serving(tmp_path, "--tls-cert", str(own / "tls.crt"), "--tls-key", str(own / "tls.key")) as served:
        trusted = tmp_path / "etc/medreward/ca/ca.crt"
        trusted.parent.mkdir(parents=True)
        trusted.write_bytes((certificates / "ca.crt").read_bytes())
        url = served.url.replace("http:", "https:")
        code, said = smoke(tmp_path, url, "mr_0000000000000000_no", tls__existingSecret="rm-tls")
    assert code == 1
    assert "FAILED: the model's files say sha256:" in said
    assert "FAILED: golden triple 0" in said
    assert "FAILED: a wrong key is answered with 200, not 401" in said
