"""Every page of the built site in a real browser: ``python release/look_at_site.py site [--shots FOLDER]``.

Each is opened in a wide window and in a phone's, in light and in dark. Wrong are: an error on the console, a request
that leaves the site, a page wider than its window, a picture that does not load, and text whose contrast is below 4.5
(WCAG AA; 3 for large letters).
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

WINDOWS = {"wide": (1280, 900), "phone": (375, 740)}
LOOK = (Path(__file__).parent / "look_at_page.js").read_text(encoding="utf-8")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder under an address of this machine."""
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def look(browser: Any, site: Path, address: str, shots: Path | None, only: str) -> Iterator[str]:
    """What is wrong with any page; and a picture of each in both windows."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages = [name for name in pages if name != "404.html" and only in name]
    for window, (width, height) in WINDOWS.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page, heard = context.new_page(), Heard(address)
            page.on("console", heard.console)
            page.on("pageerror", heard.error)
            page.on("request", heard.request)
            for name in pages:
                page.goto(f"{address}/{name}")
                page.wait_for_load_state("networkidle")
                yield from (f"{name}, {window}, {scheme}: {fault}" for fault in (*heard, *page.evaluate(LOOK)))
                heard.clear()
                if shots and (window == "phone") == (scheme == "dark"):
                    shot = name.removesuffix(".html").replace("/", "--")
                    page.screenshot(path=shots / window / f"{shot}.png", full_page=True)
            context.close()


class Heard(list[object]):
    """Errors of a page's scripts, and what it asks of others than the site."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.own = (address, "data:", "blob:")

    def console(self, message: Any) -> None:
        """A line on the console."""
        if message.type == "error":
            self.append(message.text)

    def error(self, error: Any) -> None:
        """What a script raised."""
        self.append(error)

    def request(self, request: Any) -> None:
        """A file that is asked for."""
        if not request.url.startswith(self.own):
            self.append(f"asks for {request.url}")


def main() -> int:
    """Look at all pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("--shots", type=Path, help="folder for pictures of each page")
    parser.add_argument("--only", default="", help="pages with this in their name")
    options = parser.parse_args()
    with served(options.site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM") or None, args=["--no-sandbox"])
        found = list(look(browser, options.site, address, options.shots, options.only))
        browser.close()
    print("\n".join(found) or "nothing to mend")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
