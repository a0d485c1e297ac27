"""A browser that renders pages, and a reader of what it rendered."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.process import run

_VOID = {"meta", "link", "br", "input", "image", "rect", "path", "circle", "polyline", "polygon"}
# Measures the page inside a frame of the wanted width: a window cannot be that narrow.
_FRAME = """<!DOCTYPE html><body style="margin:0"><iframe id="f" src="{name}"
style="width:{width}px;height:900px;border:0"></iframe><p id="measured"></p><script>
onload = () => {{
  const page = document.getElementById("f").contentDocument;
  const root = page.documentElement;
  const parts = "h1, h2, p, svg:not(.spark), figure, .scroll, .cards li, dd";
  const wide = [...page.querySelectorAll(parts)]
    .filter((e) => e.getBoundingClientRect().right > {width} + 1).map((e) => e.tagName);
  document.getElementById("measured").textContent =
    [root.scrollWidth, page.querySelectorAll("th button").length, wide.length].join(" ");
}};
</script></body>"""


def chromium() -> str:
    """Return the browser, or skip the test."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    pytest.skip("needs Chromium to render the page: apt-get install chromium")


def browse(page: Path, *arguments: str) -> str:
    """Open a page in a browser without a window and return what it prints."""
    profile = page.parent / "profile"
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--allow-file-access-from-files", "--disable-background-networking"]
    command += [f"--user-data-dir={profile}", *arguments, page.resolve().as_uri()]
    return run(*command, limit=120).stdout


def measure(page: Path, width: int) -> dict[str, int]:
    """Render a page that wide and return its full width, and how much of it stands out."""
    frame = page.with_name(f"frame_{width}.html")
    frame.write_text(_FRAME.format(name=page.name, width=width))
    dom = browse(frame, "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r'id="measured">(\d+) (\d+) (\d+)<', dom)
    assert found, dom[-1500:]
    return dict(zip(("width", "buttons", "outside"), map(int, found.groups()), strict=True))


class Document(HTMLParser):
    """Read a page: every element is closed where it must be, and what it refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.texts, self.unnamed = [], [], [], [], []
        self.source = text
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[name] for name in ("href", "src") if name in attrs]
        if tag == "svg" and not (attrs.get("role") == "img" and attrs.get("aria-label")):
            self.unnamed.append(attrs)
        if tag == "th" and "scope" not in attrs:
            self.unnamed.append(tag)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in _VOID:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
