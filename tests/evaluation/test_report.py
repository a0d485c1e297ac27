"""The page of an evaluation: what it says, and how a browser renders it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.evaluation.analysis import analyse
from ssd_centernet.evaluation.coco import evaluate_rows
from ssd_centernet.evaluation.ground_truth import CocoGroundTruth
from ssd_centernet.evaluation.report import html_report, write_report
from ssd_centernet.evaluation.report_images import images_of_folder
from ssd_centernet.evaluation.result import DetectionRows
from tests.evaluation.pages import Document, browse, measure
from tests.evaluation.scenes import perturbed_rows, scene

NONE = DetectionRows.from_list([])


def _truth(num_images=4, num_categories=3, objects=True):
    content = scene(num_images=num_images, num_categories=num_categories)
    return CocoGroundTruth.load(content if objects else {**content, "annotations": []})


def _page(truth, rows, **options):
    return html_report(evaluate_rows(truth, rows), truth, title="a run", **options)


def _noise(image_ids):
    rng = np.random.default_rng(0)
    return {i: rng.integers(0, 256, (120, 200, 3), np.uint8) for i in image_ids}


def test_page_says_what_was_measured_and_where_it_comes_from():
    truth = _truth()
    rows = perturbed_rows(truth, 0)
    result, found = evaluate_rows(truth, rows), analyse(truth, rows)
    page = Document(
        _page(truth, rows, facts={"checkpoint": "runs/a/ckpt-5"}, settings="a.b = '<x>'")
    )
    for name, value in result.metrics.items():
        assert f"{name} {'–' if value < 0 else f'{value:.3f}'}" in page.text
    assert "checkpoint runs/a/ckpt-5" in page.text and "a.b = '<x>'" in page.text
    for row in result.per_class:
        assert f"{row['name']} {row['AP']:.3f} {row['AP50']:.3f}" in page.text
    for kind in ("class", "localisation", "both", "duplicate", "background", "missed"):
        numbers = f"{found.shown_counts[kind]} {found.counts[kind]} {found.costs[kind]:.3f}"
        assert numbers in page.text, kind
    assert f"precision {found.shown['precision']:.1%}" in page.text


def test_page_needs_nothing_else_and_names_its_pictures():
    truth = _truth()
    text = _page(truth, perturbed_rows(truth, 0), load_images=_noise)
    page = Document(text)
    assert not page.unnamed
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link.startswith("data:image/jpeg;base64,") or link.removeprefix("#") in page.ids
    assert sum(link.startswith("data:") for link in page.links) == 4
    assert "http" not in text and "url(" not in text and "@import" not in text


def test_names_are_escaped():
    content = scene(num_images=2, num_categories=2)
    content["categories"][0]["name"] = '<script>alert("x")</script>'
    truth = CocoGroundTruth.load(content)
    text = _page(truth, perturbed_rows(truth, 0), load_images=_noise, hint="<b>", facts={"<": "&"})
    assert "<script>alert" not in text
    assert '<script>alert("x")</script>' in Document(text).text


@pytest.mark.parametrize(
    ("truth", "rows", "sentence"),
    [
        (_truth(), NONE, "No class was confused with another one"),
        (_truth(objects=False), NONE, "There are no objects in the ground truth. "),
        (
            _truth(objects=False),
            perturbed_rows(_truth(), 0),
            "There are no objects in the ground truth. ",
        ),
        (
            _truth(num_categories=1),
            perturbed_rows(_truth(num_categories=1), 0),
            "objects of 1 class,",
        ),
    ],
    ids=["no detections", "nothing at all", "no objects", "one class"],
)
def test_page_of_little(truth, rows, sentence):
    page = Document(_page(truth, rows, load_images=_noise))
    assert sentence in page.text
    for value in re.findall(r'(?:d|x|y|width|height|points|cx|cy|style)="([^"]*)"', page.source):
        assert not re.search(r"nan|inf\b", value), value
    assert not re.search(r"\b(nan|inf|-1\.0+)\b", page.text)


def test_many_classes_are_folded_and_none_is_lost():
    truth = _truth(num_images=3, num_categories=80)
    rows = perturbed_rows(truth, 1)
    text = _page(truth, rows)
    matrix = text[text.index('class="confusion"') :].split("</table>")[0]
    assert matrix.count('scope="row"') == matrix.count('scope="col"') == 12 + 2
    counts = [int(n.replace(",", "")) for n in re.findall(r"<td[^>]*>([\d,]+)</td>", matrix)]
    assert sum(counts) == analyse(truth, rows).confusion.sum()
    assert "'all others' stands for the rest" in text
    assert "'all others' stands for the rest" not in _page(_truth(), NONE)
    assert text.count("precision by recall of") == 80


def test_images_with_most_errors_come_first(tmp_path):
    truth = _truth(num_images=3, num_categories=2)
    keep = ~((truth.object_image_ids == 3) & (np.arange(6) % 2 == 0))
    rows = DetectionRows(
        image_ids=truth.object_image_ids,
        category_ids=truth.object_category_ids,
        boxes=truth.boxes,
        scores=np.full(6, 0.9),
    ).select(keep & (truth.object_image_ids != 2))
    asked = []

    def load(image_ids):
        asked.extend(image_ids)
        return _noise([2])

    page = Document(_page(truth, rows, load_images=load))
    # Of image 2 both objects are missing, of image 3 one, of image 1 none.
    assert asked == [2, 3]
    assert "image 2 : 0 found, 0 wrong, 2 not found" in page.text
    assert "Without a picture: image 3." in page.text


def test_images_are_called_by_their_file_names():
    entries = [{"id": i, "width": 32, "height": 32, "file_name": f"<{i}>.jpg"} for i in (7, 8)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (7, 8)]
    content = {"images": entries, "annotations": boxes}
    truth = CocoGroundTruth.load({**content, "categories": [{"id": 1, "name": "cat"}]})
    page = Document(_page(truth, NONE, load_images=lambda _: _noise([7])))
    assert "<7>.jpg : 0 found, 0 wrong, 1 not found" in page.text
    assert "Without a picture: <8>.jpg." in page.text


def test_images_of_a_folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (6, 4), 200).save(tmp_path / "images" / "a.png")
    Image.new("RGB", (6, 4)).save(tmp_path / "outside.png")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    names = {1: "a.png", 2: "../outside.png", 3: "broken.jpg", 4: "absent.png"}
    entries = [{"id": i, "file_name": name} for i, name in names.items()] + [{"id": 5}]
    entries.append({"id": "6", "file_name": "C:\\photos\\a.png"})  # The first under another id.
    truth = {"images": entries, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8-sig")
    load = images_of_folder(tmp_path / "images", tmp_path / "truth.json")
    images = load([1, 2, 3, 4, 5, 6])
    assert list(images) == [1, 6]
    assert images[1].shape == (4, 6, 3) and (images[1] == 200).all()
    with pytest.raises(NotADirectoryError, match="--image_dir=.*none"):
        images_of_folder(tmp_path / "none", tmp_path / "truth.json")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page with long class names, many classes and pictures."""
    content = scene(num_images=6, num_categories=40)
    for category in content["categories"]:
        category["name"] += " with_a_long_name_in_one_word"
    truth = CocoGroundTruth.load(content)
    path = tmp_path_factory.mktemp("page") / "report.html"
    result = evaluate_rows(truth, perturbed_rows(truth, 2))
    facts = {"checkpoint": "/a/very/long/path/" + 30 * "checkpoint_"}
    title = "a_run_with_a_long_name_" * 4
    write_report(path, result, truth, title=title, facts=facts, load_images=_noise)
    return path


@pytest.mark.parametrize("width", [1280, 400])
def test_browser_lays_the_page_out_within_its_width(written, width):
    measured = measure(written, width)
    assert measured["width"] == width
    assert measured["outside"] == 0
    assert measured["buttons"] == 6  # The script ran: the table of classes can be sorted.


@pytest.mark.parametrize("width", [1280, 500])
def test_browser_draws_the_page(written, width):
    picture = written.with_name(f"{width}.png")
    browse(written, f"--window-size={width},3000", f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape == (3000, width, 3)
    rows = (pixels != pixels[0, 0]).any(axis=2)
    # Something stands in each third of the height, and the margins on either side are free.
    assert all(part.mean() > 0.02 for part in np.array_split(rows, 3))
    assert not rows[:, :10].any() and not rows[:, -10:].any()
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500  # The pictures are there.
