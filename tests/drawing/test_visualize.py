import os

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.drawing import canvas, visualize

GREY = np.full((100, 200, 3), 128, np.uint8)


def changed(image: np.ndarray, base: np.ndarray = GREY) -> np.ndarray:
    return (image != base).any(axis=-1)


def test_a_box_is_drawn_where_it_is_and_nowhere_else():
    before = GREY.copy()
    box = np.array([[0.2, 0.25, 0.7, 0.75]])
    picture = visualize.draw_boxes(GREY, box, colors=[(255, 0, 0)], line_width=1)
    np.testing.assert_array_equal(GREY, before)
    red = (picture == [255, 0, 0]).all(axis=-1)
    expected = np.zeros((100, 200), bool)
    expected[20:70, 50:150] = True
    expected[21:69, 51:149] = False
    np.testing.assert_array_equal(red, expected)
    np.testing.assert_array_equal(changed(picture), expected)


def test_boxes_are_yxyx_and_cut_off_at_the_border():
    picture = visualize.draw_boxes(GREY, [[-1.0, 0.5, 0.5, 3.0]], colors=[(0, 255, 0)])
    green = np.argwhere((picture == [0, 255, 0]).all(axis=-1))
    assert green.min(axis=0).tolist() == [0, 100]
    assert green.max(axis=0).tolist() == [49, 199]


def test_boxes_without_sense_do_not_stop_the_drawing():
    boxes = [[0.5, 0.5, 0.5, 0.5], [np.nan] * 4, [0.9, 0.9, 0.1, 0.1], [2, 2, 3, 3]]
    labels = ["point", "nan", "inside out", "outside"]
    picture = visualize.draw_boxes(GREY, boxes, labels=labels, scores=[1, 1, 1, 0.5])
    assert picture.shape == GREY.shape and changed(picture).any()


def test_no_boxes_change_nothing():
    picture = visualize.draw_boxes(GREY, np.zeros((0, 4)), labels=[], scores=np.zeros(0))
    np.testing.assert_array_equal(picture, GREY)
    grey = visualize.draw_boxes(GREY[..., 0], [])
    np.testing.assert_array_equal(grey, GREY)


def test_small_boxes_lie_on_top_of_big_ones():
    colors = [(255, 0, 0), (0, 0, 255)]
    small, big = [0.4, 0.4, 0.6, 0.6], [0.4, 0.1, 0.9, 0.9]
    for boxes, order in (([small, big], (0, 1)), ([big, small], (1, 0))):
        picture = visualize.draw_boxes(GREY, boxes, colors=[colors[i] for i in order], line_width=1)
        assert picture[40, 100].tolist() == [255, 0, 0]


def test_labels_and_scores_are_written_on_the_class_colour():
    box = [[0.5, 0.3, 0.9, 0.8]]
    plain = visualize.draw_boxes(GREY, box, classes=[7])
    labelled = visualize.draw_boxes(GREY, box, classes=[7], labels=["dog"])
    scored = visualize.draw_boxes(GREY, box, classes=[7], labels=["dog"], scores=[0.87])
    above = np.zeros((100, 200), bool)
    above[:50] = True
    added = changed(labelled, plain)
    assert added.any() and not (added & ~above).any()
    share = (labelled[added] == visualize.class_color(7)).all(axis=-1).mean()
    assert 0.4 < share < 1.0
    assert changed(scored, plain).sum() > added.sum()


def test_labels_move_out_of_each_others_way():
    # The same box twice: both labels must be readable.
    boxes = [[0.4, 0.2, 0.9, 0.9]] * 2
    colors = [(255, 255, 0), (0, 255, 255)]
    picture = visualize.draw_boxes(GREY, boxes, labels=["aaaa", "bbbb"], colors=colors)
    yellow, cyan = ((picture == color).all(axis=-1).sum() for color in colors)
    assert yellow > 150 and cyan > 150


def test_crowd_regions_are_hatched():
    box = [[0.2, 0.2, 0.8, 0.8]]
    plain = visualize.draw_boxes(GREY, box, classes=[3])
    crowd = visualize.draw_boxes(GREY, box, classes=[3], is_crowd=[True])
    inside = (slice(30, 70), slice(60, 140))
    assert not changed(plain)[inside].any()
    assert changed(crowd)[inside].mean() > 0.9
    assert (crowd[inside][..., 0].astype(int) - crowd[inside][..., 1]).min() > 0


def test_class_colours_are_stable_distinct_and_bright():
    colors = np.array([visualize.class_color(i) for i in range(80)])
    assert visualize.class_color(17) == tuple(colors[17])
    assert colors.min() >= 0 and colors.max() <= 255
    assert (colors @ [0.299, 0.587, 0.114]).min() >= 0.4 * 255 - 1
    apart = np.abs(colors[:, None] - colors[None]).sum(axis=-1) + 999 * np.eye(80, dtype=int)
    assert apart.min() > 8
    assert np.abs(np.diff(colors, axis=0)).sum(axis=-1).min() > 80


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (GREY.astype(np.float32), "float32"),
        (GREY[None], r"\(1, 100, 200, 3\)"),
        (GREY[..., :2], r"\(100, 200, 2\)"),
        (GREY[:0], r"\(0, 200, 3\)"),
    ],
)
def test_images_of_another_kind_are_refused(image, words):
    with pytest.raises(ValueError, match=words + ".*expected uint8"):
        visualize.draw_boxes(image, [])


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="Got 1 labels for 2 boxes"):
        visualize.draw_boxes(GREY, np.zeros((2, 4)), labels=["a"])
    with pytest.raises(ValueError, match="Got 1 titles for 2 images"):
        visualize.contact_sheet([GREY, GREY], titles=["a"])


def test_contact_sheet_places_images_of_any_size():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sizes = [(30, 60), (200, 50), (10, 10)]
    images = [np.full((*s, 3), c, np.uint8) for s, c in zip(sizes, colors, strict=True)]
    sheet = visualize.contact_sheet(images, columns=2, cell_size=(80, 100))
    found = [np.argwhere((sheet == color).all(axis=-1)) for color in colors]
    extents = [tuple((f.max(axis=0) - f.min(axis=0) + 1).tolist()) for f in found]
    assert extents == [(50, 100), (80, 20), (80, 80)]
    assert found[0][:, 1].max() < found[1][:, 1].min()
    assert found[0][:, 0].max() < found[2][:, 0].min()


def test_contact_sheet_with_texts():
    bare = visualize.contact_sheet([GREY] * 4, cell_size=100)
    titled = visualize.contact_sheet([GREY] * 4, cell_size=100, titles=["a" * 500] * 4)
    headed = visualize.contact_sheet([GREY] * 4, cell_size=100, heading="AP 0.5\nstep 10")
    assert bare.shape[0] < titled.shape[0] and bare.shape[0] < headed.shape[0]
    assert bare.shape[1] == titled.shape[1]
    wide = visualize.contact_sheet([GREY], cell_size=50, heading="w" * 100)
    assert wide.shape[1] > 600
    assert visualize.contact_sheet([], heading="nothing").shape[0] > 20
    assert visualize.contact_sheet([]).ndim == 3


def written(text):
    """A sheet's title as pixels, by its dark letters."""
    sheet = visualize.contact_sheet([GREY], cell_size=(100, 200), titles=[text])
    below = sheet[sheet.shape[0] - 30 :]
    return (below < 160).all(axis=-1)


@pytest.mark.parametrize("fonts", ["as installed", "of Pillow alone"])
def test_titles_with_letters_beyond_ascii_are_legible(monkeypatch, fonts):
    if fonts == "of Pillow alone":
        monkeypatch.setattr(canvas, "_wide_font", lambda: None)
    box = written("\U0010ffff" * 3)
    np.testing.assert_array_equal(box, written("???"))
    umlauts = written("äöü")
    assert umlauts.any() and not np.array_equal(umlauts, box)
    # The same letters with accents as characters of their own, as some systems write file names.
    np.testing.assert_array_equal(umlauts, written("a\u0308o\u0308u\u0308"))
    np.testing.assert_array_equal(written("a\nb\tc\udcff"), written("a?b?c?"))
    if fonts == "of Pillow alone":
        np.testing.assert_array_equal(written("Größe Ærø 中"), written("Grosse Aero ?"))


def test_fit_keeps_the_aspect_ratio():
    assert visualize.fit(GREY, 50).shape == (25, 50, 3)
    assert visualize.fit(GREY, (300, 1000)).shape == (300, 600, 3)
    np.testing.assert_array_equal(visualize.fit(GREY, 200), GREY)


def test_compare_shows_both_sides():
    truth = {
        "boxes": np.array([[0.2, 0.2, 0.8, 0.4], [0, 0, 0, 0]]),
        "classes": np.array([1, -1]),
        "valid": np.array([True, False]),
    }
    found = {
        "boxes": np.array([[0.2, 0.6, 0.8, 0.8], [0.1, 0.1, 0.9, 0.9], [0.4, 0.1, 0.6, 0.2]]),
        "scores": np.array([0.9, 0.2, 0.9]),
        "classes": np.array([0, 0, 0]),
        "count": np.array(2),
    }
    sheet = visualize.compare(GREY, truth, found, names=["cat", "dog"])
    colors = [visualize.class_color(1), visualize.class_color(0)]
    left, right = (np.argwhere((sheet == color).all(axis=-1))[:, 1] for color in colors)
    middle = sheet.shape[1] / 2
    assert left.max() < middle < right.min()
    # Nothing at or beyond the box that is below min_score, or behind `count`.
    assert right.min() > middle + 0.5 * 200


def test_detections_of_one_image_are_drawn():
    found = {
        "boxes": np.array([[[0.2, 0.6, 0.8, 0.8], [0.1, 0.1, 0.9, 0.2], [0.4, 0.3, 0.6, 0.4]]]),
        "scores": np.array([[0.9, 0.2, 0.9]]),
        "classes": np.array([[1, 1, 1]]),
        "count": np.array([2]),
    }
    drawn = visualize.draw_detections(GREY, found, names=["cat", "dog"])
    only = {name: value[0, :1] for name, value in found.items() if name != "count"}
    np.testing.assert_array_equal(drawn, visualize.draw_boxes(GREY, labels=["dog"], **only))
    # The second is drawn from its score on, the third is padding whatever it says.
    more = changed(visualize.draw_detections(GREY, found, min_score=0.1), drawn)
    assert more[:, 20:40].any() and not more[:, 60:80].any()
    two = {name: np.repeat(value, 2, axis=0) for name, value in found.items()}
    with pytest.raises(ValueError, match="detections of 2 images, expected one"):
        visualize.draw_detections(GREY, two)


def test_save_png_is_whole_or_absent(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 8, 3)).astype(np.uint8)
    path = visualize.save_png(tmp_path / "new" / "a.png", image)
    with Image.open(path) as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read), image)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        visualize.save_png(path, image[::-1])
    monkeypatch.undo()
    with Image.open(path) as read:
        np.testing.assert_array_equal(np.asarray(read), image)
    assert os.listdir(tmp_path / "new") == ["a.png"]


NO_FONT = "\U0002f9d4\U0002f9d5"  # Rare ideographs.


def labelled(labels, classes=None):
    boxes = np.array([[0.2, 0.1, 0.9, 0.9]] * len(labels))
    colors = [(200, 0, 0)] * len(labels)
    return visualize.draw_boxes(GREY, boxes, labels=labels, classes=classes, colors=colors)


def test_classes_that_no_font_can_write_stay_apart():
    names = [NO_FONT, f"bolt {NO_FONT}", "Болт", NO_FONT[:1]]
    assert canvas.distinct(names, [0, 1, 2, 3]) == [
        "class 1",
        f"bolt {NO_FONT} (class 2)",
        "Болт",
        "class 4",
    ]
    assert canvas.distinct([NO_FONT, "cat", NO_FONT[:1], NO_FONT], None) == [
        "class 1",
        "cat",
        "class 2",
        "class 1",
    ]
    assert canvas.distinct(["what?", "a"], [0, 1]) == ["what?", "a"]
    np.testing.assert_array_equal(labelled([NO_FONT], [4]), labelled(["class 5"], [4]))
    assert (labelled([NO_FONT], [4]) != labelled([NO_FONT[:1]], [5])).any()


def test_letters_from_right_to_left_are_drawn_in_their_order(monkeypatch):
    monkeypatch.setattr(canvas.features, "check", lambda name: False)
    first, last = "\u05d0", "\u05d1"
    assert canvas.legible(f"{first}{last} 87%", 12)[0] == f"87% {last}{first}"
    assert canvas.legible(f"nut {first}{last} {last} 87%", 12)[0] == f"nut {last} {last}{first} 87%"
    monkeypatch.setattr(canvas.features, "check", lambda name: True)
    assert canvas.legible(f"{first}{last}", 12)[0] == f"{first}{last}"


def test_long_names_are_cut_in_the_middle_and_keep_their_score():
    font = canvas.load_font(12)
    name = "a class of things with a very long name 87%"
    cut = canvas._cut(name, font, 120)
    assert font.getlength(cut) <= 120 < font.getlength(name)
    assert cut.startswith("a clas") and "..." in cut and cut.endswith("87%")
    assert canvas._cut("cat 87%", font, 120) == "cat 87%"
    wide = changed(labelled(["x" * 300]))
    assert wide.any() and not wide[:, -2:].all()


def test_large_pictures_are_drawn_for_a_look_at_their_parts():
    """Lines as thin as a part asks for, and no label that is wider than its box."""
    image = np.zeros((1000, 1000, 3), np.uint8)
    boxes = [[0.1, 0.1, 0.13, 0.13], [0.5, 0.5, 0.7, 0.7]]
    options = {"labels": ["tall tree", "tree"], "colors": [(255, 0, 0), (0, 255, 0)]}
    plain = visualize.draw_boxes(image, boxes, **options)
    parts = visualize.draw_boxes(image, boxes, detail=180.0, **options)
    # The lower edge of the small box, from 100 to 130: 6 lines, and one.
    assert (plain[120:140, 115, 0] > 100).sum() > 3 and (parts[120:140, 115, 0] > 100).sum() == 1
    red, green = (parts[..., k] > 100 for k in (0, 1))
    assert not red[:99].any() and green[480:499, 500:560].any()
    assert (plain[60:99, 90:160, 0] > 100).any()
