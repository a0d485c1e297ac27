"""Detection on videos: real files, that are whole, cut, empty, turned or none."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from ssd_centernet.cli import predict
from ssd_centernet.predict.video import predict_video
from ssd_centernet.predict.video_files import (
    VideoWriter,
    frames_of_folder,
    is_video,
    open_camera,
    open_video,
)
from tests.cli.command_line import parsed
from tests.predict.test_prediction import FRUIT, RedFinder

cv2 = pytest.importorskip(
    "cv2", reason='OpenCV is not installed: pip install "ssd_centernet[video]"'
)
WIDTH, HEIGHT, RATE = 80, 48, 20.0


def write(path, reds, *, size=(WIDTH, HEIGHT), code="mp4v"):
    """Write frames of plain red levels with OpenCV itself."""
    code = cv2.VideoWriter_fourcc(*code)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, RATE, size)
    assert writer.isOpened()
    for red in reds:
        writer.write(np.full((size[1], size[0], 3), (0, 0, red), np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", [250, 250, 0, 250, 0, 250, 250])


def lines_of(found):
    with open(found.lines) as file:
        return [json.loads(line) for line in file]


def test_a_video_is_drawn_and_listed_frame_by_frame(clip, tmp_path):
    video = open_video(clip)
    assert (video.rate, video.count) == (RATE, 7)
    options = {"label_map": FRUIT, "batch_size": 3, "min_score": 0.5}
    found = predict_video(RedFinder(), video, output=tmp_path / "out" / "clip", **options)
    rows = lines_of(found)
    assert [row["frame"] for row in rows] == list(range(7))
    assert [row["time"] for row in rows] == pytest.approx([n / RATE for n in range(7)], abs=1e-3)
    # Frames 2 and 4 are black: nothing is found, and they have their lines all the same.
    assert [len(row["detections"]) for row in rows] == [1, 1, 0, 1, 0, 1, 1]
    assert (found.frames, found.detections) == (7, 5) and found.rate > 0 and not found.notes
    one = rows[0]["detections"][0]
    assert one.pop("score") > 0.9
    assert one == {"category_id": 8, "class": "plum", "bbox": [0.0, 12.0, 40.0, 24.0]}
    drawn = list(open_video(found.drawn).frames())
    assert len(drawn) == 7 and drawn[0][1].shape == (HEIGHT, WIDTH, 3)
    original = [frame for _, frame in open_video(clip).frames()]
    changed = [np.abs(a.astype(int) - b).max() for (_, a), b in zip(drawn, original, strict=True)]
    assert [change > 60 for change in changed] == [True, True, False, True, False, True, True]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.jsonl", "clip.mp4"]


def test_where_lines_are_the_drawn_video_is_of_the_same_call(clip, tmp_path, monkeypatch):
    output = tmp_path / "clip"
    pair = [tmp_path / "clip.mp4", tmp_path / "clip.jsonl"]
    options = {"label_map": FRUIT, "min_score": 0.5}
    predict_video(RedFinder(), open_video(clip), output=output, max_frames=2, **options)
    seen = []
    for name in ("replace", "unlink"):
        change = getattr(os, name)

        def watched(*arguments, change=change, **options):
            change(*arguments, **options)
            seen.append([path.read_bytes() if path.exists() else None for path in pair])

        monkeypatch.setattr(os, name, watched)
    old = [path.read_bytes() for path in pair]
    predict_video(RedFinder(), open_video(clip), output=output, **options)
    new = [path.read_bytes() for path in pair]
    assert old[0] != new[0] and old[1] != new[1] and seen[-1] == new
    assert all(lines is None or [drawn, lines] in (old, new) for drawn, lines in seen)


def test_chosen_classes_the_first_frames_and_no_drawing(clip, tmp_path):
    options = {"label_map": FRUIT, "min_score": 0.0, "draw": False, "max_frames": 2}
    found = predict_video(
        RedFinder(), open_video(clip), output=tmp_path / "c", classes=["apple"], **options
    )
    rows = lines_of(found)
    assert len(rows) == 2 and found.drawn is None and not found.notes
    assert {one["class"] for row in rows for one in row["detections"]} == {"apple"}
    assert os.listdir(tmp_path) == ["c.jsonl"]


def test_only_one_batch_of_frames_is_in_memory(clip, tmp_path):
    held, most = [], []

    class Counting(RedFinder):
        def __call__(self, images, training):
            most.append(len(held))
            held.clear()
            return super().__call__(images, training)

    video = open_video(clip)

    def frames():
        for seconds, frame in video.frames():
            held.append(frame)
            yield seconds, frame

    counted = video.__class__(**{**vars(video), "frames": frames})
    options = {"label_map": FRUIT, "batch_size": 2, "draw": False}
    tf.config.run_functions_eagerly(True)
    try:
        predict_video(Counting(), counted, output=tmp_path / "c", **options)
    finally:
        tf.config.run_functions_eagerly(False)
    assert most == [2, 2, 2, 1]


def test_folders_of_frames_go_by_their_numbers(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, red in ((10, 250), (2, 0), (1, 250)):
        Image.new("RGB", (WIDTH, HEIGHT), (red, 0, 0)).save(folder / f"frame{number}.png")
    (folder / "frame3.png").write_text("no picture")
    video = frames_of_folder(folder, 4.0)
    found = predict_video(RedFinder(), video, output=tmp_path / "o", label_map=FRUIT, min_score=0.5)
    rows = lines_of(found)
    assert [len(row["detections"]) for row in rows] == [1, 0, 1]
    assert [row["time"] for row in rows] == [0.0, 0.25, 0.75]  # Frame 3 is no picture.
    assert list(video.skipped) == [str(folder / "frame3.png")] and not found.notes
    assert open_video(found.drawn).rate == 4.0
    Image.new("RGB", (20, 20)).save(folder / "frame4.png")
    before = (tmp_path / "o.mp4").read_bytes()
    with pytest.raises(ValueError, match="has 20x20 pixels, but the first one has 80x48"):
        video = frames_of_folder(folder, 4.0)
        predict_video(RedFinder(), video, output=tmp_path / "o", label_map=FRUIT)
    # The files of before stay, and nothing else.
    assert (tmp_path / "o.mp4").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["frames", "o.jsonl", "o.mp4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: 0 bytes"),
        (b"hello", "cannot be opened as a video"),
        (b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", "a list of other files or addresses"),
        ("half", "cannot be opened as a video: it is cut off"),
    ],
)
def test_files_that_are_no_video_are_refused(clip, tmp_path, capfd, content, message):
    path = tmp_path / "a.mp4"
    whole = clip.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=message) as error:
        open_video(path)
    assert str(path) in str(error.value)
    assert capfd.readouterr().err == ""  # OpenCV's own lines are held back.


def test_what_is_no_file_is_refused(tmp_path):
    for path, message in (
        ("rtsp://127.0.0.1/a", "is an address"),
        (tmp_path / "none.mp4", "does not exist"),
        (tmp_path, "is no file"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            open_video(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        frames_of_folder(tmp_path / "empty", 5.0)
    assert is_video("a/B.MP4") and not is_video("a.gif") and not is_video("mp4")


def test_a_video_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path):
    whole = write(tmp_path / "w.mkv", [250] * 40, code="MJPG").read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    video = open_video(cut)
    found = predict_video(RedFinder(), video, output=tmp_path / "o", label_map=FRUIT, draw=False)
    assert 15 < found.frames < 30 and len(lines_of(found)) == found.frames
    if video.count:
        assert f"ends after {found.frames} of the {video.count} frames" in found.notes[0]


def test_the_video_itself_is_not_replaced(clip):
    with pytest.raises(ValueError, match="is the video itself: give another --output_dir"):
        predict_video(RedFinder(), open_video(clip), output=clip.with_suffix(""), label_map=FRUIT)


def test_frames_that_are_lost_on_a_full_disk_are_told(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 5.0)
    writer.add(np.zeros((48, 64, 3), np.uint8))
    writer.count += 1  # As if the second one had not been written.
    with pytest.raises(OSError, match="only 1 of 2 frames of the drawn video"):
        writer.close()


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--fps=nan", "no number of frames"), ("--fps=inf", "no number"), ("--classes=", "is empty")],
)
def test_flags_that_mean_nothing_are_refused(argument, message, tmp_path):
    with parsed("predict", [argument]), pytest.raises(flags.IllegalFlagValueError, match=message):
        predict._videos([str(tmp_path)])


def predicted(model_dir, capsys, *arguments):
    """Predict as the command does; returns what it said on both streams."""
    with parsed("predict", [f"--model_dir={model_dir}", *map(str, arguments[1:])]):
        assert predict.main(["predict", *map(str, arguments[:1])]) == 0
    return capsys.readouterr()


def test_videos_of_several_sizes_are_traced_once(model_dir, tmp_path, capsys, caplog):
    folder = tmp_path / "clips"
    (folder / "inside").mkdir(parents=True)
    for number in range(7):
        name = "inside/0.avi" if number == 0 else f"{number}.mp4"
        code = "MJPG" if number == 0 else "mp4v"
        write(folder / name, [250, 0], size=(64 + 16 * number, 48), code=code)
    out = folder / "out"
    for _ in range(2):  # What the first call drew is not taken for a video of the folder.
        said = predicted(model_dir, capsys, folder, f"--output_dir={out}", "--device=cpu")
        assert said.out.count(": 2 frames, ") == 7 and "inside/0.avi" in said.out
        assert len(list(out.glob("*.jsonl"))) == 7
    assert not [line for line in caplog.messages if "retracing" in line]


def test_tracks_are_counted_and_are_for_videos(model_dir, clip, tmp_path, capsys):
    flags_of = ["--track", "--min_score=0.02", "--device=cpu", "--no_draw"]
    said = predicted(model_dir, capsys, clip, f"--output_dir={tmp_path}", *flags_of)
    rows = [json.loads(line) for line in (tmp_path / "clip.jsonl").read_text().splitlines()]
    numbers = [one["track_id"] for row in rows for one in row["detections"]]
    told = f"detections of score 0.02 or more or in one of {max(filter(None, numbers)):,} tracks, "
    assert f": 7 frames, {len(numbers):,} {told}" in said.out
    assert None in numbers and None not in numbers[: len(rows[0]["detections"])]
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    with parsed("predict", ["--model_dir=x", "--track"]):
        with pytest.raises(flags.Error, match="--track is for videos, and none is given"):
            predict._videos([str(tmp_path / "a.png")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--camera=0 has no end: give --max_images"),
        (["--max_images=3", "street.png"], "--camera=0 is all that is read: leave out street.png"),
        (["--max_images=3", "--fps=5"], "leave out --fps"),
    ],
)
def test_a_camera_is_read_alone_and_for_so_many_frames(arguments, message):
    paths = [one for one in arguments if one[0] != "-"]
    given = [one for one in arguments if one[0] == "-"]
    with parsed("predict", ["--model_dir=x", "--camera=0", *given]):
        with pytest.raises(flags.Error, match=message):
            predict._videos(paths)


def test_a_camera_that_is_not_there_is_told(capfd):
    with pytest.raises(ValueError, match="--camera=97: there is no such camera, another program"):
        open_camera(97)
    assert capfd.readouterr().err == ""


def test_frames_without_end_are_taken_until_there_are_enough(clip, tmp_path):
    """As of a camera: the number of frames is not known, and more or fewer come than wanted."""
    video = dataclasses.replace(open_video(clip), path="camera_0", count=None)
    options = {"label_map": FRUIT, "output": tmp_path / "camera_0", "batch_size": 1}
    found = predict_video(RedFinder(), video, max_frames=5, **options)
    assert found.frames == 5 and not found.notes
    found = predict_video(RedFinder(), video, max_frames=9, **options)  # And replaces the first.
    assert found.notes == ["camera_0 ended after 7 of 9 frames"] and len(lines_of(found)) == 7


def test_videos_beside_pictures_are_said(model_dir, clip, tmp_path, capsys):
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    said = predicted(model_dir, capsys, tmp_path, f"--output_dir={tmp_path / 'o'}", "--device=cpu")
    assert ": 1 image, " in said.out and " 0 files skipped" in said.out
    assert (
        f"note: {tmp_path} holds 2 videos beside its pictures, such as {tmp_path}/one" in said.err
    )


@pytest.mark.parametrize("exported", [False, True])
def test_all_unknown_classes_are_told_before_the_model_is_loaded(exported, model_dir, tmp_path):
    (tmp_path / "mscoco_label_map.pbtxt").write_bytes(
        (model_dir / "mscoco_label_map.pbtxt").read_bytes()
    )
    card = {"labels": [{"name": "disc"}], "preprocessing": {"steps": ["fitted"]}}
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    given = [f"--model_dir={tmp_path}"]
    if exported:
        given = [f"--model={tmp_path / 'model.onnx'}", f"--output_dir={tmp_path / 'o'}"]
    with parsed("predict", [*given, "--classes=Disc,horse"]):
        with pytest.raises(
            ValueError, match=r"called 'Disc'.*No class is called 'horse'.*Set --cl"
        ):
            predict.main(["predict", str(tmp_path / "picture.png")])
