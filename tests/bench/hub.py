"""A stand-in for the hub: one data set or model at one commit, as huggingface_hub asks for it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPO = "someone/Some-Bench"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    url: str
    paths: list[str] = field(default_factory=list)


@contextmanager
def hub_of(folder: Path, kind: str = "datasets") -> Iterator[Hub]:
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.paths.append(path)
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            names = [str(file.relative_to(folder)) for file in files]
            if path in (f"/api/{kind}/{REPO}/revision/{name}" for name in ("v1.0", COMMIT)):
                about = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                return self.give(json.dumps(about).encode())
            if path == f"/api/{kind}/{REPO}/tree/{COMMIT}":
                sizes = [file.stat().st_size for file in files]
                tree = [
                    {"type": "file", "path": name, "size": size, "oid": "0" * 40}
                    for name, size in zip(names, sizes, strict=True)
                ]
                return self.give(json.dumps(tree).encode())
            resolved = f"{'' if kind == 'models' else f'/{kind}'}/{REPO}/resolve/{COMMIT}/"
            file = folder / path.removeprefix(resolved)
            if path.startswith(resolved) and file.is_file():
                return self.give(file.read_bytes())
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if REPO in path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        do_HEAD = do_GET  # noqa: N815  # as the base class wants it

        def give(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
