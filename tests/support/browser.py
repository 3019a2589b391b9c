"""A real browser without a window, told what to do over its DevTools pipe."""

import base64
import json
import os
import select
import subprocess
import tempfile
import time
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
KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}


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

    def tab(self, url: str, width: int = 1280, scheme: str = "light") -> "Tab":
        """Opens a page that a test acts on, as a person would."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        for domain in ("Page", "Network", "Log", "Runtime", "DOM"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setScrollbarsHidden", hidden=True)  # they come and go with the height
        tab.resize(width, scheme)
        tab.go(url)
        return tab

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


class Tab:
    """A page under test. `seen` has all that it asked for and complained about since it was opened."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.seen = Seen()

    def call(self, method: str, **params: Any) -> Any:
        return self._browser._call(method, self._session, self.seen, **params)

    def resize(self, width: int, scheme: str, height: int = 900) -> None:
        size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url: str) -> None:
        self.call("Page.navigate", url="about:blank")  # a change of the hash alone would load nothing
        self.call("Page.navigate", url=url)
        page = json.dumps(url.partition("#")[0])
        self.wait(f"location.href.split('#')[0] === {page} && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """Returns what the expression gives, after its promise where it gives one."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Returns as soon as the expression is true."""
        until = time.monotonic() + PATIENCE_S
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < until, f"{expression} did not come true: {self.text('body')[:2000]}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str, modifiers: int = 0) -> None:
        """Presses a key by its name: "Tab", "Enter", " ", "a". Modifiers: 1 Alt, 2 Ctrl, 8 Shift."""
        code = KEY_CODES.get(key) or ord(key.upper())
        name = f"Key{key.upper()}" if len(key) == 1 and key.isalpha() else key
        about = {"key": key, "code": name, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        typed = {} if modifiers & ~8 else {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, *files: Path) -> None:
        """Gives files to a file field."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def screenshot(self, file: Path) -> None:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._browser._call("Target.closeTarget", targetId=self._target)


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
