"""Open a page in headless Chromium, take its picture, and tell what it logged and asked for.

    python tools/screenshot.py runs/demo/report.html picture.png --width 1280 --dark

Speaks the DevTools protocol over a pipe, so nothing but Chromium is needed. `open_page` is also
what the browser tests use: `Page.messages` holds console errors, uncaught exceptions and refusals
of the content policy, `Page.requests` every address the page asked for.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new --remote-debugging-pipe --no-sandbox --disable-gpu --no-first-run "
    "--disable-dev-shm-usage --disable-background-networking --disable-component-update "
    "--disable-sync --disable-default-apps --hide-scrollbars"
).split()
# Chromium reads commands from descriptor 3 and writes replies to 4
LAUNCH = """
import os, sys
read, write = (os.dup(int(each)) for each in sys.argv[1:3])
os.dup2(read, 30); os.dup2(write, 31); os.dup2(30, 3); os.dup2(31, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


@dataclass
class Page:
    """A loaded page. `call` sends one DevTools command to it and returns the reply."""

    to_browser: int
    from_browser: int
    session: str | None = None
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    events: set[str] = field(default_factory=set)
    _buffer: bytes = b""
    _count: int = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its reply. Raises: RuntimeError as the browser says."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": params}
        if self.session is not None:
            command["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != self._count:
            self._note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return dict(message["result"])

    def wait_for(self, event: str) -> None:
        """Wait for an event that may have come already."""
        while event not in self.events:
            self._note(self._next())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{expression}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def picture(self, *, whole: bool = True) -> bytes:
        """A PNG of the whole page, or of what the window shows."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        return base64.b64decode(shot["data"])

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        area = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return {"clip": area}

    def _next(self, timeout_s: float = 60.0) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self.from_browser], [], [], timeout_s)[0]:
                raise TimeoutError(f"the browser said nothing for {timeout_s:.0f} s")
            chunk = os.read(self.from_browser, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser ended; run it by hand to see why")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method", ""), event.get("params", {})
        self.events.add(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            self.messages.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("warning", "error"):
            self.messages.append(json.dumps(params["args"]))


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def open_page(
    address: str, *, width: int = 1280, height: int = 900, scale: float = 1.0, dark: bool = False
) -> Iterator[Page]:
    """A loaded page in a browser of its own, with an empty profile."""
    profile_folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with profile_folder as profile, _browser(profile) as page:
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        attached = page.call("Target.attachToTarget", targetId=target, flatten=True)
        page.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.events.clear()
        page.call("Page.navigate", url=address)
        page.wait_for("Page.loadEventFired")
        time.sleep(0.2)  # let scripts that wait for the load event run and log
        page.evaluate("1")
        yield page


@contextmanager
def _browser(profile: str) -> Iterator[Page]:
    browser = find_browser()
    if browser is None:
        raise RuntimeError(f"no browser found, tried {', '.join(BROWSERS)}; install chromium")
    child_reads, we_write = os.pipe()
    we_read, child_writes = os.pipe()
    launch = [sys.executable, "-c", LAUNCH, str(child_reads), str(child_writes)]
    process = subprocess.Popen(
        [*launch, browser, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(child_reads, child_writes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(child_reads)
    os.close(child_writes)
    page = Page(we_write, we_read)
    try:
        yield page
    finally:
        page.session = None
        with suppress(OSError, RuntimeError, TimeoutError):
            page.call("Browser.close")
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(we_write)
        os.close(we_read)


def main() -> int:
    """Take one picture; exit 1 when the page logged an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--window", action="store_true", help="only what the window shows")
    given = parser.parse_args()
    size = {"width": given.width, "height": given.height, "scale": given.scale}
    with open_page(given.page.resolve().as_uri(), dark=given.dark, **size) as page:
        given.picture.write_bytes(page.picture(whole=not given.window))
        for message in page.messages:
            print(message, file=sys.stderr)
        return 1 if page.messages else 0


if __name__ == "__main__":
    raise SystemExit(main())
