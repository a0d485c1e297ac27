"""The rendered data set: deterministic, true to its annotations, and with every special case."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.data import synthetic
from ssd_centernet.data import synthetic_scenes as scenes
from ssd_centernet.data.convert import convert_coco
from ssd_centernet.data.synthetic import make_synthetic

NUM_TRAIN, NUM_VAL = 300, 20


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    paths = make_synthetic(folder, num_train=NUM_TRAIN, num_val=NUM_VAL, seed=5)
    return folder, {split: json.loads(open(path).read()) for split, path in paths.items()}


def by_image(content: dict) -> dict[int, list[dict]]:
    groups = collections.defaultdict(list)
    for annotation in content["annotations"]:
        groups[annotation["image_id"]].append(annotation)
    return groups


def test_layout_and_ids(rendered):
    folder, contents = rendered
    assert [len(contents[s]["images"]) for s in ("train", "val")] == [NUM_TRAIN, NUM_VAL]
    ids = [i["id"] for s in ("train", "val") for i in contents[s]["images"]]
    assert ids == list(range(1, NUM_TRAIN + NUM_VAL + 1))
    for split, content in contents.items():
        assert [a["id"] for a in content["annotations"]] == list(
            range(1, len(content["annotations"]) + 1)
        )
        # The gap at 3 is there to catch ids taken for classes.
        assert [(c["id"], c["name"]) for c in content["categories"]] == [
            (1, "disc"),
            (2, "square"),
            (4, "triangle"),
        ]
        for image in content["images"]:
            with Image.open(folder / split / image["file_name"]) as file:
                assert file.format == "JPEG" and file.size == (image["width"], image["height"])


def test_every_special_case_occurs(rendered):
    folder, contents = rendered
    content, groups = contents["train"], by_image(contents["train"])
    assert 3 <= sum(image["id"] not in groups for image in content["images"]) <= 40
    crowds = [a for a in content["annotations"] if a["iscrowd"]]
    assert 3 <= len(crowds) <= 40
    modes = collections.Counter(
        Image.open(folder / "train" / image["file_name"]).mode for image in content["images"]
    )
    assert 2 <= modes["L"] <= 30 and modes["L"] + modes["RGB"] == NUM_TRAIN
    sizes = {(image["width"], image["height"]) for image in content["images"]}
    assert len(sizes) > 200 and min(map(min, sizes)) >= 160 and max(map(max, sizes)) <= 256
    per_class = collections.Counter(a["category_id"] for a in content["annotations"])
    assert set(per_class) == {1, 2, 4} and min(per_class.values()) > 100


def test_most_objects_are_large_and_none_is_hidden(rendered):
    content, groups = rendered[1]["train"], by_image(rendered[1]["train"])
    shares = []
    for image in content["images"]:
        for annotation in groups[image["id"]]:
            x, y, width, height = annotation["bbox"]
            assert x >= 0 and y >= 0 and width > 0 and height > 0
            assert x + width <= image["width"] and y + height <= image["height"]
            assert 0 < annotation["area"] <= width * height
            if not annotation["iscrowd"]:
                shares.append(max(width, height) / min(image["width"], image["height"]))
    # The border and other objects may cut a little off the drawn 15 %.
    assert np.mean(np.array(shares) > 0.13) > 0.9
    assert np.mean(np.array(shares) < 0.72) > 0.99


def test_boxes_and_areas_are_those_of_the_pixels():
    """The annotations against the pixels that differ from a picture without the object."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scene = scenes._Scene(np.full((80, 100, 3), 200, np.float32), grey=False, visible=0.6)
        scenes._add_object(rng, scene, "triangle")
        (annotation,) = scene.annotations()
        # Beyond the grain of a texture, and half covered at least.
        changed = np.abs(scene.pixels - 200).max(axis=2) > 25
        rows, columns = np.nonzero(changed)
        x, y, width, height = annotation["bbox"]
        corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(corners - [x, y, x + width, y + height]).max() <= 2
        assert abs(changed.sum() / annotation["area"] - 1) < 0.25


def test_objects_are_brighter_or_darker_than_what_is_behind():
    weights = np.array([0.299, 0.587, 0.114])
    for seed, behind in enumerate(np.linspace(0, 255, 30)):
        colour = scenes._colour(np.random.default_rng(seed), behind, 45.0)
        assert abs(colour @ weights - behind) > 45.0


def test_a_later_object_may_not_hide_an_earlier_one():
    scene = scenes._Scene(np.zeros((10, 10, 3), np.float32), grey=False, visible=0.6)
    window = (slice(0, 4), slice(0, 5))
    scene.paint(scene.add(1), window, np.ones((4, 5), np.float32), np.ones((4, 5, 3)))
    cover = np.zeros((4, 5), bool)
    cover[:2, :4] = True  # 8 of 20: 60 % stay
    assert not scene.would_hide(window, cover)
    cover[2, 0] = True
    assert scene.would_hide(window, cover)
    alpha = (np.arange(5) < 2).astype(np.float32)[np.newaxis].repeat(4, 0)
    scene.paint(scene.add(2), window, alpha, np.ones((4, 5, 3)))
    first, second = scene.annotations()
    # The later object covers columns 0 and 1 of the earlier one.
    assert first["bbox"] == [2, 0, 3, 4] and first["area"] == 12
    assert second["bbox"] == [0, 0, 2, 4] and second["area"] == 8


def tree(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
    options = {"num_train": 6, "num_val": 2, "image_size": (64, 96)}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_synthetic(tmp_path / name, seed=seed, **options)
    first, second, other = (tree(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[k] != other[k] for k in first)
    assert first["train/000001.jpg"] != first["val/000007.jpg"]


def test_second_call_does_nothing_and_other_arguments_are_refused(tmp_path):
    options = {"num_train": 3, "num_val": 1, "image_size": (48, 64)}
    make_synthetic(tmp_path, **options)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    make_synthetic(tmp_path, **options)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    with pytest.raises(FileExistsError, match="overwrite"):
        make_synthetic(tmp_path, seed=1, **options)
    make_synthetic(tmp_path, seed=1, num_train=2, num_val=1, image_size=(48, 64), overwrite=True)
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_hard_scenes_have_many_small_objects_of_rare_classes(rendered, tmp_path):
    options = {"num_train": 60, "num_val": 2, "seed": 5}
    content = json.loads(open(make_synthetic(tmp_path, hard=True, **options)["train"]).read())
    assert content["info"]["hard"]
    assert [one["name"] for one in content["categories"]] == list(scenes.CATEGORY_IDS)
    groups, easy = by_image(content), by_image(rendered[1]["train"])
    assert max(map(len, groups.values())) > 15 and max(map(len, easy.values())) <= 6
    per_class = collections.Counter(one["category_id"] for one in content["annotations"])
    frequent, *_, rare = (per_class[number] for number in sorted(scenes.CATEGORY_IDS.values()))
    assert frequent > 8 * rare > 0
    lengths = [
        np.median([max(one["bbox"][2:]) for group in found.values() for one in group])
        for found in (groups, easy)
    ]
    assert lengths[0] < 0.6 * lengths[1]
    with pytest.raises(FileExistsError):
        make_synthetic(tmp_path, **options)


def test_hard_pictures_have_noise_and_some_are_out_of_focus():
    sharpness, noise = [], []
    for seed in range(40):
        scene = scenes.render_scene(np.random.default_rng(seed), (80, 90), ["disc"], scenes.HARD)
        picture = np.asarray(scene.picture().convert("L"), np.float32)
        noise.append(np.median(np.abs(np.diff(scene.pixels[..., 0], axis=1))))
        sharpness.append((np.abs(np.diff(picture, axis=1)).mean(), scene.blur))
    assert max(noise) > 2 * min(noise)
    blurred = [value for value, blur in sharpness if blur]
    assert 8 <= len(blurred) <= 24
    assert np.mean(blurred) < 0.6 * np.mean([value for value, blur in sharpness if not blur])


@pytest.mark.parametrize("shape", scenes.CATEGORY_IDS)
def test_a_shape_is_as_large_as_asked_and_has_its_holes(shape):
    for seed in range(5):
        mask = scenes._shape_mask(np.random.default_rng(seed), shape, 40.0) > 0.5
        # Rounded up.
        assert max(mask.shape) in (40, 41)
        # The tips of a crescent are thinner than a pixel.
        blunt = 0.9 if shape != "crescent" else 0.75
        extent = [np.ptp(places) + 1 for places in np.nonzero(mask)]
        assert np.all(extent >= blunt * np.array(mask.shape))
        middle = mask[mask.shape[0] // 2, mask.shape[1] // 2]
        assert middle == (shape not in ("ring", "frame", "crescent"))


def test_an_interrupted_rendering_does_not_look_finished(tmp_path, monkeypatch):
    options = {"num_train": 3, "num_val": 3, "image_size": (48, 64)}
    calls = []

    def stop_at_the_fifth(*arguments, render=scenes.render_scene):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(synthetic, "render_scene", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path, **options)
    monkeypatch.undo()
    assert not (tmp_path / "annotations" / "instances_val.json").exists()
    make_synthetic(tmp_path, **options)
    assert len(list((tmp_path / "val").iterdir())) == 3
    # Finished now: other arguments are refused again.
    with pytest.raises(FileExistsError):
        make_synthetic(tmp_path, seed=9, **options)


def test_folders_of_somebody_else_are_not_touched(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="train exists and was not rendered"):
        make_synthetic(tmp_path, num_train=1, num_val=1)
    assert (tmp_path / "train" / "holiday.jpg").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_train": 0}, "got 0"),
        ({"image_size": (100, 50)}, "smallest, largest"),
        ({"image_size": (8, 50)}, "32..4096"),
        ({"shapes": ["cube"]}, "cube"),
        ({"shapes": []}, "distinct"),
        ({"shapes": ["disc", "disc"]}, "distinct"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_refuses(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_synthetic(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_converts_without_a_repair(rendered, tmp_path):
    folder, contents = rendered
    info = convert_coco(
        folder / "annotations" / "instances_train.json",
        folder / "train",
        tmp_path,
        progress=False,
    )
    assert info["report"] == {}
    assert info["num_images"] == NUM_TRAIN
    assert info["num_objects"] == len(contents["train"]["annotations"])
