"""Detect objects in images: drawings, and COCO-style json.

Examples:
  ssd_centernet predict --model_dir=runs/ssd300 street.jpg holidays/
  ssd_centernet predict --model_dir=runs/ssd300 --contact_sheet val2017 --max_images=64 \\
      --annotations=instances_val2017.json
  ssd_centernet predict --model=exported/ssd300/model.tflite --output_dir=drawn street.jpg
  ssd_centernet predict --model_dir=runs/ssd300 --track street.mp4
  ssd_centernet predict --model_dir=runs/ssd300 --fps=25 frames/
  ssd_centernet predict --model_dir=runs/trees --tiles=400,100 forest.png

Arguments are image files and folders; without any, the images that the run was evaluated on.
Every image is drawn to OUTPUT_DIR/NAME.png with the detections above --min_score.
OUTPUT_DIR/detections.json holds all detections, also those of low score, for `ssd_centernet
evaluate --detections`. An image_id is the number in the file name, or a running number;
images.json lists them. With --annotations the ground truth is drawn beside, and the ids are those
of the file_name that the end of a path is.

--tiles cuts pictures that are larger into squares with an overlap, detects on each and on the
whole, and merges what it has found: small objects of a large picture keep their pixels.

Of a video file come OUTPUT_DIR/NAME.mp4, drawn, and NAME.jsonl, a line for each frame with its
number, its time in seconds and the detections of --min_score or more. Of a folder without pictures
the videos are taken. --fps takes folders for videos, of which the pictures are the frames. --track
numbers the objects that go on from frame to frame. --camera takes the frames of a camera, as many
as --max_images says. OpenCV reads videos: pip install ssd_centernet[video].
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ssd_centernet.cli import _flags, _runs, _tiles
from ssd_centernet.plain_text import counted
from ssd_centernet.run_directory import PREDICTIONS_DIR

if TYPE_CHECKING:
    from ssd_centernet.predict.video_files import Video

MIN_SCORE = 0.3
BATCH_SIZE = 8


def define_flags() -> None:
    """Define the flags of this command."""
    _runs.define_run_flags()
    flags.DEFINE_string("output_dir", None, "Where to write (default: MODEL_DIR/predictions).")
    _runs.define_model()
    _tiles.define_tiles()
    flags.DEFINE_float(
        "min_score",
        MIN_SCORE,
        "Lowest score of a detection that is drawn, 0..1.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_string(
        "split", None, "Without image files: those of this split (default: that of the evaluation)."
    )
    flags.DEFINE_integer(
        "max_images", None, "Stop after this many images, or frames of each video.", lower_bound=1
    )
    flags.DEFINE_string(
        "annotations", None, "COCO json of the images, to draw the ground truth beside."
    )
    flags.DEFINE_boolean("contact_sheet", False, "Also put up to 64 drawings on one sheet.")
    flags.DEFINE_list("classes", None, "Keep detections of these classes alone, by their names.")
    flags.DEFINE_boolean("no_draw", False, "Write the lists of detections, and no drawings.")
    flags.DEFINE_float(
        "fps",
        None,
        "Take each folder for a video with so many frames per second: its pictures, in the order "
        "of the numbers in their names.",
        lower_bound=0.001,
    )
    flags.DEFINE_integer(
        "camera",
        None,
        "Take the frames of this camera for a video, --max_images of them; 0 is the first.",
        lower_bound=0,
    )
    flags.DEFINE_boolean(
        "track",
        False,
        "Of videos: number the objects, each the same from frame to frame, in lines and drawings.",
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name, image files and folders.

    Returns:
        The exit status: 1 when no image could be read.
    """
    values = flags.FLAGS
    _tiles.tiles_of_flags()
    if values.model is not None:
        _runs.refuse_with_model("batch_size")
        _flags.require("output_dir")
        if not argv[1:] and values.camera is None:
            raise flags.Error("Give image files or folders after the flags.")
    else:
        _flags.require("model_dir")
    _flags.check_folders("output_dir")
    _flags.check_output("output_dir", PREDICTIONS_DIR)
    _check_classes()
    if videos := _videos(argv[1:]):
        return _predict_videos(videos)
    return predict_run(
        argv[1:] or _runs.images_of_run(values.split),
        output_dir=values.output_dir,
        checkpoint=values.checkpoint,
        max_images=values.max_images,
        min_score=values.min_score,
        annotations=values.annotations,
        contact_sheet=values.contact_sheet,
        draw=not values.no_draw,
        classes=values.classes,
    )


def predict_run(
    paths: Sequence[str],
    *,
    output_dir: str | None = None,
    checkpoint: str | None = None,
    max_images: int | None = None,
    min_score: float = MIN_SCORE,
    allow: Sequence[str] = (),
    **options: Any,
) -> int:
    """Detect objects with the run of --model_dir and print what was found.

    Args:
        paths: image files and folders.
        output_dir: where to write; None is `predictions` in the run's directory.
        checkpoint: which weights, as in `choose_checkpoint`.
        max_images: stop after this many.
        min_score: detections below it are not drawn.
        allow: names whose overrides may be without effect.
        **options: as of `evaluation.predict.predict`.

    Returns:
        The exit status: 1 when no image could be read; then nothing was written.

    Raises:
        FileNotFoundError: there is no such file or folder; nothing was read or written.
    """
    values = flags.FLAGS
    _check_there(paths)
    output_dir = Path(output_dir or Path(values.model_dir) / PREDICTIONS_DIR)
    from ssd_centernet.data.validate import format_report
    from ssd_centernet.predict.image_files import find_images
    from ssd_centernet.predict.prediction import predict

    files = find_images(paths, without=output_dir)[:max_images]
    if not files:
        print(f"There are no images in {', '.join(paths)}.", file=sys.stderr)
        return 1
    detector, label_map, name, title = _detector(checkpoint, allow)
    if values.batch_size:
        options["batch_size"] = values.batch_size
    with _runs.progress_bar(len(files)) as bar:
        found = predict(
            detector,
            files,
            output_dir=output_dir,
            label_map=label_map,
            min_score=min_score,
            heading=f"{title}\nscore {min_score:g} or more",
            progress=bar.update,
            **options,
        )
    if found.report:
        print(format_report(found.report), file=sys.stderr)
    for path, reason in found.unreadable.items():
        print(f"skipped {path}: {reason}", file=sys.stderr)
    if not found.images:
        print(
            f"None of {counted(len(files), 'file')} could be read as an image: nothing is written, "
            f"and {output_dir} is as it was.",
            file=sys.stderr,
        )
        return 1
    drawn = sum(image["detections"] for image in found.images)
    print(
        f"{name}: {counted(len(found.images), 'image')}, {counted(drawn, 'detection')} of score "
        f"{min_score:g} or more ({len(found.rows):,} in all), "
        f"{counted(len(found.unreadable), 'file')} skipped: {output_dir}"
    )
    if found.contact_sheet:
        print(f"contact sheet: {found.contact_sheet}")
    return 0


def _check_there(paths: Sequence[str]) -> None:
    """Refuse what is not there before a detector is built: a slip would leave pictures out."""
    gone = [path for path in paths if not os.path.exists(path)]
    if gone:
        others = {1: "", 2: " (nor does 1 other)"}.get(
            len(gone), f" (nor do {len(gone) - 1} others)"
        )
        raise FileNotFoundError(
            f"{gone[0]} does not exist{others}: expected image files or folders. Nothing is "
            "written."
        )


def _detector(checkpoint: str | None, allow: Sequence[str] = ()) -> tuple[Any, Any, str, str]:
    """Open the run or the file that the flags name: detector, label map, name and title."""
    values = flags.FLAGS
    exported = values.model if "model" in values else None  # `train --inference` has no such flag.
    tiles = _tiles.tiles_of_flags()
    if exported is not None:
        from ssd_centernet.export.exported import ExportedDetector

        detector = ExportedDetector(exported)
        found = detector, detector.label_map, exported, Path(exported).name
    else:
        run = _runs.open_run_of_flags(checkpoint=checkpoint, allow=allow)
        title = f"{Path(values.model_dir).name}, {Path(run.checkpoint).name}"
        found = run.detector, run.label_map, run.checkpoint, title
    if tiles is None:
        return found
    detector = _tiles.tiled(*found[:2], tiles, values.batch_size or BATCH_SIZE)
    return detector, *found[1:3], f"{found[3]}, tiles of {tiles.size} pixels"


def _videos(paths: Sequence[str]) -> list[Video]:
    """Open the videos among the arguments: all of them, or none.

    Raises:
        flags.Error: there are images too, or flags that are for images alone.
    """
    from ssd_centernet.predict.video_files import frames_of_folder, is_video, open_video

    values = flags.FLAGS
    if values.camera is not None:
        return [_camera(paths)]
    folders = [path for path in paths if values.fps and Path(path).is_dir()]
    if values.fps is not None and not math.isfinite(values.fps):
        raise flags.IllegalFlagValueError(f"--fps={values.fps} is no number of frames per second.")
    if values.classes is not None and not values.classes:
        raise flags.IllegalFlagValueError(
            "--classes is empty, so that no detection would be kept: give names of classes with "
            "commas between them, or leave it out."
        )
    if values.fps and not folders:
        raise flags.Error("--fps is for folders of frames, and no folder is given.")
    if not values.fps:
        paths = _with_videos_of_folders(paths)
    chosen = [path for path in paths if path in folders or is_video(path) or "://" in path]
    if chosen and len(chosen) < len(paths):
        other = next(path for path in paths if path not in chosen)
        raise flags.Error(
            f"{chosen[0]} is a video and {other} is none: give them in two calls, or folders of "
            "frames with --fps."
        )
    given = [n for n in ("annotations", "contact_sheet", "split") if chosen and values[n].present]
    if given:
        raise flags.Error(f"--{given[0]} is for images, and {chosen[0]} is a video: leave it out.")
    if values.track and not chosen:
        raise flags.Error(
            "--track is for videos, and none is given: images have no objects in common. Take a "
            "folder of frames for a video by --fps, or leave it out."
        )
    return [
        frames_of_folder(path, values.fps) if path in folders else open_video(path)
        for path in chosen
    ]


def _camera(paths: Sequence[str]) -> Video:
    """Open the camera of --camera, where nothing else is given and its frames will end."""
    from ssd_centernet.predict.video_files import open_camera

    values = flags.FLAGS
    others = ("fps", "annotations", "contact_sheet", "split")
    given = [*paths, *(f"--{name}" for name in others if values[name].present)]
    if given:
        raise flags.Error(f"--camera={values.camera} is all that is read: leave out {given[0]}.")
    if values.max_images is None:
        raise flags.Error(
            f"--camera={values.camera} has no end: give --max_images, the number of frames."
        )
    return open_camera(values.camera)


def _with_videos_of_folders(paths: Sequence[str]) -> list[str]:
    """Put the videos of folders that hold no pictures in their place; say where others are."""
    from ssd_centernet.predict.image_files import find_images
    from ssd_centernet.predict.video_files import find_videos

    found, without = [], _output_dir()
    for path in paths:
        inside = find_videos(path, without=without) if Path(path).is_dir() else []
        if inside and not find_images([path], without=without):
            found += inside
            continue
        found.append(path)
        if inside:
            print(
                f"note: {path} holds {counted(len(inside), 'video')} beside its pictures, such as "
                f"{inside[0]}: not read; give videos as files, in a call of their own",
                file=sys.stderr,
            )
    return found


def _output_dir() -> Path:
    values = flags.FLAGS
    return Path(values.output_dir or Path(values.model_dir) / PREDICTIONS_DIR)


def _check_classes() -> None:
    """Refuse names of classes before anything is read or built, where they are known by then."""
    values = flags.FLAGS
    if not values.classes:
        return
    from ssd_centernet.data.directory import LABEL_MAP_NAME
    from ssd_centernet.labels import LabelMap
    from ssd_centernet.predict.prediction import class_numbers

    if values.model is not None:
        from ssd_centernet.export.exported import labels_of

        class_numbers(values.classes, labels_of(values.model))
        return
    saved = Path(values.model_dir) / LABEL_MAP_NAME
    if saved.is_file():  # Of what is no run, another message tells.
        class_numbers(values.classes, LabelMap.from_pbtxt(saved))


def _predict_videos(videos: Sequence[Video]) -> int:
    """Detect objects on videos, and print what was found on each."""
    from ssd_centernet.predict.image_files import output_names
    from ssd_centernet.predict.prediction import finder
    from ssd_centernet.predict.video import predict_video

    values = flags.FLAGS
    output_dir = _output_dir()
    names = output_names([os.path.abspath(video.path) for video in videos], "")
    detector, label_map, name, _ = _detector(values.checkpoint)
    # A camera does not wait for a batch to be found.
    batch_size = values.batch_size or (BATCH_SIZE if values.camera is None else 1)
    find = finder(detector, batch_size)
    for video in videos:
        with _runs.progress_bar(video.count, unit="frame") as bar:
            found = predict_video(
                detector,
                video,
                output=output_dir / names[os.path.abspath(video.path)],
                label_map=label_map,
                batch_size=batch_size,
                min_score=values.min_score,
                draw=not values.no_draw,
                classes=values.classes,
                track=values.track,
                max_frames=values.max_images,
                progress=bar.update,
                find=find,
            )
        for path, reason in video.skipped.items():
            print(f"skipped {path}: {reason}", file=sys.stderr)
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
        kind = f"of score {values.min_score:g} or more"
        if found.tracks is not None:
            kind += f" or in one of {counted(found.tracks, 'track')}"
        print(
            f"{name}: {video.path}: {counted(found.frames, 'frame')}, "
            f"{counted(found.detections, 'detection')} {kind}, "
            f"{found.rate:.1f} frames per second: "
            f"{' and '.join(filter(None, (found.drawn, found.lines)))}"
        )
    return 0
