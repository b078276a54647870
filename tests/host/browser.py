"""ComfyUI's own page in a headless Chromium, for tests and for `docs/make_workflows.py`.

    with open_page(comfy.url) as page:
        page.load(workflow); page.run(); page.curve("FewStepScheduler")
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
QUEUE = '[data-testid="queue-button"] button, button[data-testid="queue-button"]'
LIMIT = 60_000  # milliseconds; a busy machine starts the page in 10 s

# How the page looks may depend on settings that it keeps on the server; every page starts with these.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.VueNodes.Enabled": False,
    "Comfy.ColorPalette": "dark",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "FewStep.Curve": True,
}

# Banners about the page itself, each until it was closed once.
_CLOSED = """
for (const key of ["vueNodesBannerDismissed", "comfy.vueNodesMigration.dismissed"]) localStorage.setItem(key, "true");
"""

_HELPERS = """
window.fewstepTest = {
  node(type, nth = 0) {
    return app.graph.nodes.filter((node) => node.type === type)[nth];
  },
  widget(type, name, nth = 0) {
    return this.node(type, nth).widgets.find((widget) => widget.name === name);
  },
  box(type, nth = 0) {
    return this.widget(type, "fewstep_curve", nth)?.element;
  },
  curve(type, nth = 0) {
    const box = this.box(type, nth);
    if (!box?.isConnected) return null;
    const text = (name) => box.querySelector(name)?.textContent ?? "";
    return {
      calls: text(".fewstep-calls"),
      state: text(".fewstep-state"),
      readout: text(".fewstep-readout"),
      report: text(".fewstep-report"),
      levels: box.querySelector("svg").getAttribute("aria-label") ?? "",
      dots: box.querySelectorAll("circle").length,
      path: box.querySelector("path")?.getAttribute("d") ?? "",
      axis: [...box.querySelectorAll("svg text")].at(-1)?.textContent ?? "",
      assumed: box.querySelector("select")?.selectedOptions[0]?.textContent ?? "",
    };
  },
};
"""


def why_no_browser() -> str:
    """A sentence where there is no browser to test with, else ""."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: `python install.py --test` installs it."
    return "" if chromium() else "there is no chromium: `apt-get install chromium` installs it."


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """The page of one server. `page` is playwright's; `messages` what the console said: (kind, text, address)."""

    def __init__(self, page: Any):
        self.page = page
        self.messages: list[tuple[str, str, str]] = []
        self.under_way: set[Any] = set()
        page.on("console", lambda message: self.messages.append((message.type, message.text, message.location.get("url", ""))))
        page.on("pageerror", lambda error: self.messages.append(("pageerror", f"{error}\n{error.stack}", "")))
        page.on("request", lambda request: self.under_way.add(request) if "/fewstep/" in request.url else None)
        for ending in ("requestfinished", "requestfailed"):
            page.on(ending, lambda request: self.under_way.discard(request))

    # --- the page ---

    def js(self, code: str, argument: Any = None) -> Any:
        return self.page.evaluate(code, argument)

    def until(self, code: str, argument: Any = None, limit: float = LIMIT) -> Any:
        """Wait until JavaScript gives something true, and return it."""
        return self.page.wait_for_function(code, arg=argument, timeout=limit).json_value()

    def set(self, **settings: Any) -> None:
        """Change settings; names have their dots as double underscores."""
        for name, value in settings.items():
            self.js("([name, value]) => app.extensionManager.setting.set(name, value)", [name.replace("__", "."), value])

    def settle(self, milliseconds: int = 500) -> None:
        self.page.wait_for_timeout(milliseconds)

    def rest(self, milliseconds: int = 400) -> None:
        """Wait until all we asked the server is answered and the graph has stayed as it is for longer than we wait before we ask."""
        before, deadline = None, time.monotonic() + 120
        while self.under_way or self.workflow() != before:
            assert time.monotonic() < deadline, f"the page does not come to rest; under way: {self.under_way}"
            before = self.workflow()
            self.settle(milliseconds)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console from our files (in the address or in a stack) and about our addresses."""
        wrong = ("error", "warning", "pageerror")
        ours = ("/fewstep/", "fewstep:")
        found = [(kind, f"{text} ({url})") for kind, text, url in self.messages if kind in wrong]
        return [f"{kind}: {text}" for kind, text in found if any(name in text.lower() for name in ours)]

    # --- the graph ---

    def load(self, workflow: dict | str) -> None:
        text = workflow if isinstance(workflow, str) else json.dumps(workflow)
        self.js("async (text) => { await app.loadGraphData(JSON.parse(text)); }", text)
        self.settle(150)

    def workflow(self) -> dict:
        """The graph as the page would save it."""
        return json.loads(self.js("() => JSON.stringify(app.graph.serialize())"))

    def prompt(self) -> dict:
        """The graph as the page would queue it."""
        return self.js("async () => (await app.graphToPrompt()).output")

    def set_widget(self, node_type: str, name: str, value: Any, nth: int = 0) -> None:
        """Change an input as the canvas does."""
        code = """([type, name, value, nth]) => {
          const widget = fewstepTest.widget(type, name, nth);
          widget.value = value;
          widget.callback?.(value);
          app.graph.setDirtyCanvas(true, true);
        }"""
        self.js(code, [node_type, name, value, nth])

    def curve(self, node_type: str, nth: int = 0) -> dict:
        """What is drawn in a node."""
        return self.js("([type, nth]) => fewstepTest.curve(type, nth)", [node_type, nth])

    def wait_for_curve(self, node_type: str, condition: str, nth: int = 0, limit: float = LIMIT) -> dict:
        """Wait until a JavaScript condition on `curve` is true, and return the curve."""
        code = f"([type, nth]) => {{ const curve = fewstepTest.curve(type, nth); return curve && ({condition}) ? curve : false; }}"
        return self.until(code, [node_type, nth], limit)

    def view(self, x: float, y: float, scale: float) -> None:
        """Show the graph with its point (-x, -y) in the corner, enlarged by `scale`."""
        code = "([x, y, s]) => { app.canvas.ds.offset = [x, y]; app.canvas.ds.scale = s; app.canvas.setDirty(true, true); }"
        self.js(code, [x, y, scale])
        self.settle(100)

    def run(self, limit: float = LIMIT) -> None:
        """Queue the workflow with the page's button and wait until it has ended well."""
        self.js(
            """async () => {
              const { api } = await import("/scripts/api.js");
              window.fewstepRun = "";
              for (const name of ["execution_success", "execution_error", "execution_interrupted"])
                api.addEventListener(name, () => (window.fewstepRun = name), { once: true });
            }"""
        )
        self.page.locator(QUEUE).first.click()
        refused = "Object.keys(app.lastNodeErrors ?? {}).length && JSON.stringify(app.lastNodeErrors)"
        ended = self.until(f"() => window.fewstepRun || ({refused})", limit=limit)
        assert ended == "execution_success", f"the run ended with {ended}"
        self.settle()


@contextlib.contextmanager
def open_page(url: str, width: int = 1600, height: int = 1000, scale: float = 1.0, **settings: Any) -> Iterator[Page]:
    """Open the page of a server and wait until it can be used; settings as in `Page.set`."""
    browser = launch_browser()
    try:
        context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale)
        context.add_init_script(_CLOSED)
        page = Page(context.new_page())
        page.page.goto(url, wait_until="commit", timeout=LIMIT)
        page.until("() => window.app?.graph && window.app.extensionManager && document.querySelector('[data-testid=\"queue-button\"]')")
        page.js(_HELPERS)
        page.set(**{**{name.replace(".", "__"): value for name, value in SETTINGS.items()}, **settings})
        page.settle()
        yield page
    finally:
        browser.close()


def launch_browser() -> Any:
    """Return playwright's Browser.

    It ends with this process, whatever ends that: the driver reads from it, and closes the browser when nobody writes.
    """
    return _playwright().chromium.launch(executable_path=chromium(), headless=True, args=list(FLAGS))


@functools.cache
def _playwright() -> Any:
    """Playwright's driver; a process can have one."""
    from playwright.sync_api import sync_playwright

    manager = sync_playwright()
    driver = manager.start()
    atexit.register(manager.__exit__)
    return driver
