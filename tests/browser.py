"""Debian's Chromium without a window, driven over its remote debugging protocol."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--remote-debugging-port=0")
WAIT_SECONDS = 60.0
_KEYS = {" ": "Space", "ArrowLeft": "ArrowLeft", "ArrowRight": "ArrowRight", "Backspace": "Backspace", "Enter": "Enter"}


class _MovedError(Exception):
    """The page went elsewhere while it was asked."""


class Browser:
    """One page. `said` are the messages of its console, exceptions included."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.said: list[str] = []
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._connection.recv(timeout=WAIT_SECONDS))
            if told.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.said.append(json.dumps(told["params"]))
            if told.get("id") == self._number:
                if "navigated" in told.get("error", {}).get("message", ""):
                    raise _MovedError
                assert "error" not in told, told["error"]
                return told["result"]

    def size(self, width: int, height: int) -> None:
        """Of the window in CSS pixels; one narrower than 500 is a phone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def open(self, address: str) -> None:
        """Loads a page and waits for it."""
        self.call("Page.navigate", url="about:blank")  # an address that differs in its fragment only loads nothing
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + WAIT_SECONDS
        while not self._is_true(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def _is_true(self, condition: str) -> bool:
        try:
            return bool(self.evaluate(condition))
        except _MovedError:
            return False

    def press(self, *keys: str) -> None:
        """Presses keys one by one, as a keyboard does."""
        for key in keys:
            code = _KEYS.get(key, f"Digit{key}" if key.isdigit() else f"Key{key.upper()}")
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, text=text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    def write(self, text: str) -> None:
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """A screenshot of what the window shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def downloads_to(self, folder: Path) -> None:
        """Where downloads go."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Starts one with a profile folder of its own, which another start may use again."""
    assert BROWSER is not None
    port_file = profile / "DevToolsActivePort"
    port_file.unlink(missing_ok=True)
    with subprocess.Popen([BROWSER, *OPTIONS, f"--user-data-dir={profile}"], stderr=subprocess.DEVNULL) as process:
        try:
            with _connect(process, port_file) as connection:
                yield Browser(connection)
                connection.send(json.dumps({"id": 0, "method": "Browser.close"}))  # writes what the page stored
            process.wait(WAIT_SECONDS)
        finally:
            process.kill()


def _connect(process: subprocess.Popen[bytes], port_file: Path) -> ClientConnection:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            port, path = port_file.read_text().split()
            with connect(f"ws://127.0.0.1:{port}{path}", proxy=None) as whole:
                whole.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
                target = json.loads(whole.recv(timeout=WAIT_SECONDS))["result"]["targetId"]
            return connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", proxy=None, max_size=None)
        except (OSError, ValueError, WebSocketException):
            assert process.poll() is None and time.monotonic() < end, "the browser does not start"
            time.sleep(0.05)
