"""Training on annotations as they are, in the real program, and what the run remembers of them."""

import json
import re
import shutil
from pathlib import Path

import pytest
from absl import flags

from ssd_centernet.cli import _runs
from tests.cli.command_line import parsed
from tests.data.readers.own_set import BOXES, write_voc, write_yolo
from tests.process import cli, need_horovod
from tests.tiny import RUN_RECIPE


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.gin"
    path.write_text(f"{RUN_RECIPE}\ntrain.pictures = 0\ntrain.keep_empty = True\n")
    return path


@pytest.fixture(scope="module")
def train(recipe, warm):
    def run(model_dir, *arguments, status=0):
        given = (f"--gin_file={recipe}", f"--model_dir={model_dir}", "--device=cpu")
        return cli("train", *given, *arguments, python=warm, status=status)

    return run


def coco_flags(pictures):
    folder, paths = pictures
    return [
        f"--annotations={paths['train']}",
        f"--image_dir={folder / 'train'}",
        f"--val_annotations={paths['val']}",
        f"--val_image_dir={folder / 'val'}",
    ]


@pytest.fixture(scope="module")
def run_of_coco(pictures, train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco") / "run"
    return folder, train(folder, *coco_flags(pictures)).stdout


def test_coco_as_it_is_downloaded_is_a_data_directory(pictures, train, tmp_path, warm):
    folder, paths = pictures
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copy(paths[split], coco / "annotations" / f"instances_{split}2017.json")
        (coco / f"{split}2017").symlink_to(folder / split)
    run = tmp_path / "run"
    said = train(run, f"--data_path={coco}").stdout
    assert f"{coco} holds COCO as it is downloaded: it is converted, once, to {run}/data" in said
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all" in said
    words = ("evaluate", f"--model_dir={run}", f"--data_dir={coco}", "--device=cpu")
    assert f"on coco_val of {run}/data" in cli(*words, python=warm, status=0).stdout


def test_coco_as_it_is_downloaded_is_not_what_another_run_was_trained_on(tmp_path):
    run, records, coco = tmp_path / "run", tmp_path / "records", tmp_path / "coco"
    for folder in (run, records, coco / "annotations", coco / "train2017", coco / "val2017"):
        folder.mkdir(parents=True)
    for split in ("train", "val"):
        (coco / "annotations" / f"instances_{split}2017.json").touch()
    (records / "coco_val.record").touch()
    begin = {"event": "begin", "step": 0, "time": 1.0, "data_dir": str(records)}
    (run / "sessions.jsonl").write_text(f"{json.dumps(begin)}\n")
    with parsed("evaluate", [f"--model_dir={run}", f"--data_dir={coco}"]):
        with pytest.raises(flags.Error, match=f"was trained on {records}. Convert it by"):
            _runs.data_dir_of_flags()


def boxes_of(folder, split):
    """File -> boxes as the conversion wrote them."""
    (path,) = folder.glob(f"*_{split}.annotations.json")
    content = json.loads(path.read_text())
    files = {image["id"]: image["file_name"] for image in content["images"]}
    found = {name: [] for name in files.values()}
    for one in content["annotations"]:
        found[files[one["image_id"]]].append((one["bbox"], one["category_id"]))
    return found


def test_coco_annotations_are_converted_beside_the_run_and_evaluated_on(run_of_coco, pictures):
    folder, printed = run_of_coco
    for split, count in (("train", 4), ("val", 7)):
        info = json.loads((folder / "data" / f"coco_{split}.info.json").read_text())
        assert info["num_images"] == count
        listed = json.loads(Path(pictures[1][split]).read_text())["annotations"]
        assert info["num_objects"] == len(listed) > 0
        assert f"coco_{split}: {pictures[1][split]} is converted." in printed
        files = f"{folder / 'data'}/coco_{split}.record-*"
        # Where a line breaks depends on the length of the folder's name.
        assert f"{files}: {count} images" in " ".join(printed.split())
        assert "Objects per class: " in printed
    scores = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert scores["num_images"] == 7 and (folder / "best").is_dir()


def test_the_second_start_finds_the_records(run_of_coco, pictures, train):
    folder, _ = run_of_coco
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "data").iterdir()}
    again = train(folder, *coco_flags(pictures), "--num_steps=4").stdout
    assert "coco_train: " in again and "was converted before: 4 images" in again
    assert re.search(r"resuming from .*ckpt-3 at step 3", again)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "data").iterdir()}
    assert after.items() >= {k: v for k, v in before.items() if not k.startswith(".")}.items()


def test_evaluate_and_predict_know_the_data_of_the_run(run_of_coco, warm, tmp_path):
    folder, _ = run_of_coco
    run = (f"--model_dir={folder}", "--device=cpu")
    done = cli("evaluate", *run, f"--output_dir={tmp_path / 'e'}", python=warm).stdout
    assert f"--data_dir={folder / 'data'}, as the run was trained on it" in done
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["num_images"] == 7
    drawn = cli("predict", *run, f"--output_dir={tmp_path / 'p'}", python=warm).stdout
    assert "images: the 7 of coco_val" in drawn
    assert len(list((tmp_path / "p").glob("*.png"))) == 7
    # A split has the name that `convert --split` gave it, and another is told with the right flag.
    short = (f"--output_dir={tmp_path / 's'}", "--split=train")
    assert "on coco_train of" in cli("evaluate", *run, *short, python=warm).stdout
    assert json.loads((tmp_path / "s" / "metrics.json").read_text())["num_images"] == 4
    wrong = cli("evaluate", *run, "--split=training", python=warm, status=1).stderr
    assert "'training', but of coco_train, coco_val: give one of them as --split" in wrong
    # The data may move with the run, and then it is found in it.
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    lines = (moved / "sessions.jsonl").read_text().replace(str(folder), str(tmp_path / "gone"))
    (moved / "sessions.jsonl").write_text(lines)
    done = cli("evaluate", f"--model_dir={moved}", "--device=cpu", python=warm).stdout
    assert f"--data_dir={moved / 'data'}, as" in done
    shutil.rmtree(moved / "data")
    lost = cli("evaluate", f"--model_dir={moved}", "--device=cpu", python=warm, status=2)
    assert "--data_dir must be given: the data" in lost.stderr


def test_a_data_yaml_gives_both_splits(train, tmp_path):
    root = write_yolo(tmp_path / "yolo", "train")
    shutil.copytree(root / "images" / "train", root / "images" / "val")
    (root / "labels" / "val").mkdir()
    (root / "labels" / "val" / "c.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    run, data = tmp_path / "run", tmp_path / "records"
    train(run, f"--annotations={root / 'data.yaml'}", f"--data_dir={data}")
    found = boxes_of(data, "train")
    # In a folder of the user's own, they are called as `convert` calls them.
    assert (data / "records_train.info.json").exists()
    for name, boxes in BOXES.items():
        want = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2, _ in boxes]
        for (got, _), box in zip(found[name], want, strict=True):
            assert got == pytest.approx(box, abs=1e-3)
    assert boxes_of(data, "val")["c.png"] == [([15, 7.5, 10, 15], 2)]
    assert json.loads((run / "evaluation" / "metrics.json").read_text())["num_images"] == 3
    assert not (run / "data").exists()


def test_a_voc_folder_without_a_list_to_evaluate_on_is_trained_and_not_evaluated(train, tmp_path):
    root = write_voc(tmp_path / "voc")
    (root / "ImageSets" / "Main" / "val.txt").unlink()
    printed = train(tmp_path / "run", f"--annotations={root}").stdout
    assert "no annotations to evaluate on: the run is not evaluated" in printed
    assert boxes_of(tmp_path / "run" / "data", "train")["c.png"] == [([8, 9, 32, 21], 1)]
    assert not (tmp_path / "run" / "evaluation").exists()


def test_a_table_with_splits_is_given_twice(train, tmp_path):
    root = write_voc(tmp_path / "voc") / "JPEGImages"
    rows = ["image,xmin,ymin,xmax,ymax,class,split"]
    for name, boxes in BOXES.items():
        split = "val" if name == "c.png" else "train"
        rows += [f"{name},{x1},{y1},{x2},{y2},{c},{split}" for x1, y1, x2, y2, c in boxes]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    table = f"{tmp_path / 'boxes.csv'}"
    given = (f"--annotations={table}", f"--image_dir={root}", f"--val_annotations={table}")
    train(tmp_path / "run", *given)
    data = tmp_path / "run" / "data"
    assert boxes_of(data, "train") == {"a.jpg": [([10, 6, 20, 15], 2), ([0, 0, 4, 3], 1)]}
    assert boxes_of(data, "val") == {"c.png": [([8, 9, 32, 21], 1)]}


def test_corrected_annotations_are_read_anew_until_the_run_has_begun(train, tmp_path):
    root = write_voc(tmp_path / "voc")
    run = tmp_path / "run"
    xml = root / "Annotations" / "a.xml"
    right = xml.read_text()
    xml.write_text(right.replace("emu", "emoo"))
    # Stopped by a setting that does not exist, after the conversion at the latest.
    given = (f"--annotations={root}",)
    train(run, *given, "--gin_params=train.seed = 1", "--fine_tune_checkpoint=/none", status=1)
    assert "emoo" in (run / "data" / "mscoco_label_map.pbtxt").read_text()
    xml.write_text(right)
    printed = train(run, *given).stdout
    assert "is of other annotations, and nothing is trained yet" in printed
    assert "emoo" not in (run / "data" / "mscoco_label_map.pbtxt").read_text()
    xml.write_text(right.replace("<xmin>11</xmin>", "<xmin>13</xmin>"))
    refused = train(run, *given, "--num_steps=5", status=1).stderr
    assert "A run goes on with the data that it began with" in refused
    assert f"--data_dir={run / 'data'} to go on" in refused and "Traceback" not in refused


def test_what_convert_refuses_is_refused_with_the_way_to_its_options(train, tmp_path):
    root = write_voc(tmp_path / "voc")
    for file in ("a.jpg", "b.jpg"):
        (root / "JPEGImages" / file).write_bytes(b"no picture")
    run = tmp_path / "run"
    printed = train(run, f"--annotations={root}", status=1).stderr
    assert "max_dropped" in printed and "a.jpg" in printed and "Traceback" not in printed
    convert = (
        f"`ssd_centernet convert --annotations={root} --output_dir={run / 'data'} --split=train`"
    )
    assert f"run {convert} with them, and train with --data_dir={run / 'data'}." in printed
    assert not list(run.glob("data/*.record*"))
    xml = root / "Annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("<object>", "<object"))
    printed = train(run, f"--annotations={root}", status=1).stderr
    assert "a.xml" in printed and "Options are flags" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--val_annotations=a.json"], "--val_annotations belongs to --annotations"),
        (["--image_dir=images"], "--image_dir belongs to --annotations"),
        (["--annotations=a.json", "--use_fake_data"], "two sources of training batches"),
        (["--annotations=a.json", "--static"], "two sources of training batches"),
    ],
)
def test_flags_of_annotations_need_them(train, tmp_path, arguments, message):
    assert message in train(tmp_path / "run", *arguments, status=2).stderr


def test_images_to_evaluate_on_need_annotations(train, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    given = (f"--annotations={tmp_path / 'a.json'}", "--image_dir=.", "--val_image_dir=.")
    assert "--val_image_dir=. has no annotations" in train(tmp_path / "r", *given, status=1).stderr


def test_several_processes_wait_for_the_first_to_convert(recipe, warm, tmp_path):
    need_horovod()
    root = write_voc(tmp_path / "voc")
    run = tmp_path / "run"
    launch = ("launch", "--num_processes=2", "--", "train", f"--gin_file={recipe}")
    given = (f"--model_dir={run}", f"--annotations={root}", "--device=cpu", "--batch_size=1")
    printed = cli(*launch, *given, python=warm).text
    assert printed.count("is converted.") == 2  # Each split once, by one process.
    assert "2 processes" in printed and printed.count(f"finished: {run}") == 1
    assert boxes_of(run / "data", "val") == {"c.png": [([8, 9, 32, 21], 1)]}
    root.joinpath("Annotations", "a.xml").write_text("<annotation>")
    refused = cli(*launch, *given, "--num_steps=5", python=warm, status=1).stderr
    assert "a.xml" in refused and "Traceback" not in refused
