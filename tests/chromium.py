"""A headless Chromium driven over its own protocol: enough to fill in a page, read it, and see what it asked for."""

import contextlib
import itertools
import json
import shutil
import socket
import subprocess
import time

import requests
import websocket

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Every element below a node, in shadow trees too: widgets live there.
DEEP = """(() => { const all = []; const walk = (root) => { for (const e of root.querySelectorAll('*')) {
  all.push(e); if (e.shadowRoot) walk(e.shadowRoot); } }; walk(document); return all; })()"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(check, what: str, seconds: float = 180):
    """The first true answer of `check`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.4)
    raise AssertionError(f"not within {seconds} s: {what}")


@contextlib.contextmanager
def browser(folder):
    """A Chromium with a fresh profile in `folder`; yields a function that opens a page."""
    port = free_port()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-background-networking", f"--remote-debugging-port={port}", f"--user-data-dir={folder}"]
    options += ["--remote-allow-origins=*", "about:blank"]
    program = subprocess.Popen([PROGRAM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pages = []

    def answers():
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/json/version", timeout=5).ok

    def open_page(address, width=1200, height=900):
        target = requests.put(f"http://127.0.0.1:{port}/json/new?about:blank", timeout=20).json()
        pages.append(Page(target["webSocketDebuggerUrl"], address, width, height))
        return pages[-1]

    try:
        wait_for(answers, "Chromium starts")
        yield open_page
    finally:
        for page in pages:
            page.socket.close()
        program.terminate()
        program.wait(20)


class Page:
    """One tab; `requested`: every address that it asked for."""

    def __init__(self, target: str, address: str, width: int, height: int):
        self.socket = websocket.create_connection(target, timeout=60, max_size=None)
        self.ids, self.requested, self.console = itertools.count(1), [], []
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        self.send("Page.navigate", url=address)

    def send(self, method: str, **params) -> dict:
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("method") == "Network.webSocketCreated":
                self.requested.append(message["params"]["url"])
            if message.get("method") == "Runtime.exceptionThrown":
                self.console.append(str(message["params"]["exceptionDetails"].get("exception", {}).get("description")))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def resize(self, width: int, height: int) -> None:
        phone = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def run(self, script: str, by_value: bool = True):
        """The value of a script in which `all` is every element of the page."""
        code = f"(() => {{ const all = {DEEP}; return {script}; }})()"
        result = self.send("Runtime.evaluate", expression=code, returnByValue=by_value, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value") if by_value else result["result"].get("objectId")

    def text(self) -> str:
        """All that is shown, shadow trees included, without styles and scripts."""
        leaf = "e => !['STYLE', 'SCRIPT', 'OPTION'].includes(e.tagName) && e.getClientRects().length"
        own = "e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join(' ')"
        return self.run(f"all.filter({leaf}).map({own}).filter(t => t.trim()).join('\\n')")

    def wait_for_text(self, text: str, seconds: float = 180) -> str:
        wait_for(lambda: text in self.text(), f"{text!r} on the page", seconds)
        return self.text()

    def click(self, text: str) -> None:
        """The smallest element with this text."""
        script = f"all.filter(e => e.textContent.trim() === {json.dumps(text)} && e.getClientRects().length).pop()"
        wait_for(lambda: self.run(f"!!({script})"), f"{text!r} to click on")
        self.run(f"{script}.click()")

    def choose(self, option: str) -> None:
        """In whichever list has this option."""
        found = f"all.find(e => e.tagName === 'SELECT' && [...e.options].some(o => o.text === {json.dumps(option)}))"
        index = f"[...s.options].findIndex(o => o.text === {json.dumps(option)})"
        self.run(f"(s => {{ s.selectedIndex = {index}; s.dispatchEvent(new Event('change')); return true; }})({found})")

    def upload(self, path, nth: int = 0) -> None:
        """A file into the nth file input."""
        wait_for(lambda: self.run(f"all.filter(e => e.type === 'file').length > {nth}"), "a file input")
        element = self.run(f"all.filter(e => e.type === 'file')[{nth}]", by_value=False)
        self.send("DOM.setFileInputFiles", files=[str(path)], objectId=element)

    def screenshot(self, path) -> None:
        """The whole page as PNG."""
        import base64

        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))
