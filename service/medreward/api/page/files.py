"""The page's own files: HTML, CSS, ES modules and the drawn pictures to try. They hold no data, so they need no key."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request, Response

from medreward.errors import Code, RequestError

FOLDER: Final = Path(__file__).parent / "static"
INDEX: Final = "index.html"
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
#: The page loads its own files and talks to its own server, and to nobody else. data: and blob: are images that the
#: user chose, which the page shows.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SAFE: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True, slots=True)
class PageFile:
    content: bytes
    headers: dict[str, str]


def _read(file: Path) -> PageFile:
    content = file.read_bytes()
    # A browser asks each time whether the file has changed, so that an upgrade never mixes old and new modules.
    fresh = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "Cache-Control": "no-cache"}
    kind = {"Content-Type": MEDIA_TYPES[file.suffix], "Content-Security-Policy": POLICY}
    return PageFile(content, kind | fresh | SAFE)


FILES: Final = {file.name: _read(file) for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES}
#: The paths of the REST door that a browser must reach before its user can give a key.
OPEN_PATHS: Final = frozenset({"/", *(f"/page/{name}" for name in FILES)})


def file_reply(name: str, request: Request) -> Response:
    """Returns the file, or 304 where the browser has it already. Fails with a RequestError where there is none."""
    file = FILES.get(name)
    if file is None:
        raise RequestError(Code.NOT_FOUND, "the page has no such file")
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.headers["ETag"] in known:
        return Response(status_code=304, headers=file.headers)
    return Response(file.content, headers=file.headers)
