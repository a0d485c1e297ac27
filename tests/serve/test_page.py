"""The page that shows what is found: in a browser, and as a file that loads nothing else."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks.traffic import encoded, scene
from ssd_centernet.serve.page import page
from tests.evaluation.pages import Document, chromium
from tests.serve.browser import browser
from tests.serve.serving import need_packages, serving


def test_the_page_is_whole_and_loads_nothing_from_elsewhere():
    html, policy = page()
    document = Document(html)
    assert document.links == ["data:,"] and not document.unnamed
    assert not re.search(r"https?://|//\w+\.|url\(|@import|innerHTML|eval\(", html)
    assert html.count("<script") == html.count("<style") == 1 and " style=" not in html
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy


@pytest.fixture(scope="module")
def served(model_dir, warm):
    need_packages()
    chromium()
    with serving(f"--model_dir={model_dir}", "--min_score=0", python=warm) as server:
        yield server


def test_a_picture_that_is_dropped_is_shown_with_its_detections(served, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # Stored on its side: 240 wide and 320 high once it stands.
    (tmp_path / "street <b>.jpg").write_bytes(encoded(scene(0, 320, 240), "JPEG", exif=turned))
    (tmp_path / "no picture.jpg").write_text("hello")
    wanted = served.detect((tmp_path / "street <b>.jpg").read_bytes(), "?min_score=0")[1]
    with browser(tmp_path / "profile") as tab:
        tab.open(served.url)
        tab.wait_until("document.title.endsWith(': detect') && name.length !== 1")
        before = _pixels(tab)
        tab.drop(tmp_path / "street <b>.jpg", "#drop")
        tab.wait_until("!document.getElementById('result').hidden")
        rows = "document.querySelectorAll('#rows tr').length"
        assert tab.value(rows) == len(wanted["detections"]) > 0
        size = tab.value("[canvas.width, canvas.height]")
        assert [wanted["width"], wanted["height"]] == [240, 320] and size == [5 * 240, 5 * 320]
        told = tab.value("document.getElementById('status').textContent")
        assert told.startswith("street <b>.jpg: 240 x 320 pixels")
        assert (_pixels(tab) != before).any()
        # The score that hides all but the best ones.
        score = wanted["detections"][0]["score"]
        tab.value(f"(at('score').step = 'any', at('score').value = {score - 1e-6},"
                  "at('score').dispatchEvent(new Event('input')))")  # fmt: skip
        best = [one for one in wanted["detections"] if one["score"] >= score - 1e-6]
        assert tab.value(rows) == len(best) < len(wanted["detections"])
        tab.drop(tmp_path / "no picture.jpg", "#drop")
        tab.wait_until("document.getElementById('status').className === 'failed'")
        told = tab.value("document.getElementById('status').textContent")
        assert "expected a JPEG, PNG or WebP" in told
        # The answer 415 is a line in the log; the policy refused nothing and nothing was thrown.
        assert all("415" in line for line in tab.said), tab.said


def test_the_page_fits_a_telephone(served, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(scene(1, 900, 300), "PNG"))
    with browser(tmp_path / "profile", width=500) as tab:
        tab.call("Browser.getVersion")
        tab.open(served.url)
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=360, height=700, deviceScaleFactor=1, mobile=True,
        )  # fmt: skip
        tab.drop(tmp_path / "a.png", "#drop")
        tab.wait_until("!document.getElementById('result').hidden")
        assert tab.value("document.documentElement.scrollWidth") <= 360


def _pixels(tab) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tab.picture())))
