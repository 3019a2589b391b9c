"""A real browser without a window, told what to do over its DevTools pipe."""

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from programs import installed

# Its two ends of the pipe have to be 3 and 4.
AS_THREE_AND_FOUR = 'exec "${@:3}" 3<&"$1" 4>&"$2"'
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
PATIENCE_S = 60


@dataclass
class Seen:
    """What opening a page gave."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    overflow: int = 0  # pixels that are wider than the window
    cut: list[str] = field(default_factory=list)  # names of the regions that have to be scrolled sideways
    background: str = ""


class Browser:
    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._numbers = count(1)
        self._buffer = b""

    def open(self, file: Path, width: int, scheme: str) -> Seen:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        seen = Seen()
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable", session)
        size: dict[str, Any] = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", session, **size)
        self._call("Emulation.setEmulatedMedia", session, features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("Page.navigate", session, seen, url=file.as_uri())
        while True:
            event = self._read()
            _note(event, seen)
            if event.get("method") == "Page.loadEventFired":
                break
        root = "document.documentElement"
        seen.overflow = self._value(session, f"{root}.scrollWidth - {root}.clientWidth", seen)
        wide = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth)"
        seen.cut = json.loads(self._value(session, f"JSON.stringify({wide}.map(one => one.ariaLabel))", seen))
        seen.background = self._value(session, "getComputedStyle(document.body).backgroundColor", seen)
        self._call("Target.closeTarget", targetId=target)
        return seen

    def _value(self, session: str, expression: str, seen: Seen) -> Any:
        return self._call("Runtime.evaluate", session, seen, expression=expression)["result"]["value"]

    def _call(self, method: str, session: str | None = None, seen: Seen | None = None, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            if seen:
                _note(answer, seen)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._back], [], [], PATIENCE_S)[0], "the browser says nothing"
            read = os.read(self._back, 1 << 16)
            assert read, "the browser is gone"
            self._buffer += read
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer


def _note(event: dict[str, Any], seen: Seen) -> None:
    params = event.get("params", {})
    match event.get("method"):
        case "Network.requestWillBeSent":
            seen.requests.append(params["request"]["url"])
        case "Log.entryAdded":
            seen.complaints.append(params["entry"]["text"])
        case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
            seen.complaints.append(json.dumps(params))


@contextmanager
def browser() -> Iterator[Browser]:
    chromium = installed("chromium", "chromium-browser", "google-chrome", package="chromium")
    (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium, *FLAGS, f"--user-data-dir={profile}"]
        shell = ["bash", "-c", AS_THREE_AND_FOUR, "bash", str(theirs_in), str(theirs_out), *command]
        process = subprocess.Popen(shell, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(to, back)
        finally:
            os.close(to)  # it ends with its pipe
            process.wait(timeout=PATIENCE_S)
            os.close(back)
