"""Runs beside each other: what is read of them, their labels, the tables and the page."""

import fcntl
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.runs.lock import is_training, run_lock
from ssd_centernet.runs.logs import RunLog, differences, read_runs, short_labels
from ssd_centernet.runs.report import runs_page, text_report
from ssd_centernet.training.log_files import recorded_metrics
from tests.cli.test_evaluate import without_tensorflow
from tests.evaluation.pages import Document, browse, measure

SETTINGS = """
ConstantRate.learning_rate = {rate}
train.eval_split = 'coco_val'
train.schedule = @ConstantRate
train.steps = {steps}
"""


def window(step, total, time, **more):
    return {"kind": "train", "step": step, "total": total, "time": time, **more}


def evaluated(step, ap, **more):
    return {"kind": "eval", "step": step, **dict.fromkeys(METRIC_NAMES, ap), "APl": -1.0, **more}


def begin(step=0, time=1000.0, **facts):
    facts = {"steps_per_epoch": 10, "total_steps": 40, "global_batch_size": 4, **facts}
    return {"event": "begin", "step": step, "time": time, **facts}


def end(step, time, reason="finished"):
    return {"event": "end", "step": step, "time": time, "reason": reason}


def write_run(folder, rows=(), sessions=(), settings=SETTINGS, rate=0.1, steps=40):
    """Write what a run leaves behind."""
    folder.mkdir(parents=True)
    for name, records in (("metrics.jsonl", rows), ("sessions.jsonl", sessions)):
        if records:
            (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in records))
    if settings:
        (folder / "config.gin").write_text(settings.format(rate=rate, steps=steps))
    return folder


def curve(number, *, scale=1.0, rate=0.1):
    """Windows of ten steps with everything that a training logs."""
    return [
        window(
            10 * i,
            scale * 8.0 / i,
            1000.0 + i,
            box=1.0 / i,
            epoch=float(i),
            learning_rate=rate,
            images_per_second=10.0 * i,
        )
        for i in range(1, number + 1)
    ]


@pytest.fixture
def finished(tmp_path):
    rows = [*curve(4), evaluated(20, 0.4, loss_box=0.5), evaluated(40, 0.3, loss_box=0.4)]
    return write_run(tmp_path / "finished", rows, [begin(), end(40, 1090.0)])


def test_a_finished_run(finished):
    (run,) = read_runs([finished])
    assert (run.label, run.state, run.steps, run.total_steps) == ("finished", "finished", 40, 40)
    assert (run.images_seen, run.epochs, run.minutes) == (160, 4.0, 1.5)
    assert run.images_per_second == 25.0
    assert run.loss == pytest.approx(2.0)
    assert (run.last["step"], run.best["step"], run.best["AP"]) == (40, 20, 0.4)
    steps, values = run.curve("box")
    assert steps.tolist() == [10, 20, 30, 40] and values[1] == 0.5
    steps, values = run.curve("loss_box", of_evaluations=True)
    assert steps.tolist() == [20, 40] and values.tolist() == [0.5, 0.4]


def test_what_was_done_again_counts_once(tmp_path):
    rows = [window(s, 5.0, s) for s in (10, 20, 30)] + [evaluated(10, 0.1), evaluated(30, 0.9)]
    rows += [window(s, 1.0, 100 + s) for s in (21, 30)] + [evaluated(30, 0.2)]
    folder = write_run(tmp_path / "run", rows)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    windows, evaluations = recorded_metrics(folder)
    assert [(one["step"], one["total"]) for one in windows] == [(10, 5), (20, 5), (21, 1), (30, 1)]
    assert [(one["step"], one["AP"]) for one in evaluations] == [(10, 0.1), (30, 0.2)]


def test_a_killed_run_that_went_on(tmp_path):
    rows = [window(10, 4.0, 1060.0), window(20, 3.0, 5030.0)]
    sessions = [begin(), begin(10, 5000.0)]
    (run,) = read_runs([write_run(tmp_path / "run", rows, sessions)])
    assert run.state == "interrupted"
    # A minute until the kill, half a one since; not the hour between them.
    assert run.minutes == pytest.approx(1.5)
    with run_lock(tmp_path / "run"):
        assert read_runs([tmp_path / "run"])[0].state == "running"
    assert not is_training(tmp_path / "run") and not is_training(tmp_path)


def test_asking_whether_a_run_goes_on_does_not_take_its_lock(tmp_path):
    with run_lock(tmp_path):
        assert is_training(tmp_path)
    with run_lock(tmp_path), open(tmp_path / ".lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("sessions", "state"),
    [
        ([], "not running"),
        ([begin(), end(5, 1.0, "stopped early")], "stopped early"),
        ([begin(), end(5, 1.0, "SIGTERM")], "stopped by SIGTERM"),
        ([begin(), end(5, 1.0, "NonFiniteLossError")], "failed: NonFiniteLossError"),
    ],
)
def test_states(tmp_path, sessions, state):
    assert read_runs([write_run(tmp_path / "run", curve(1), sessions)])[0].state == state


def test_a_run_that_has_only_begun_says_nothing_yet(tmp_path):
    (run,) = runs = read_runs([write_run(tmp_path / "new")])
    assert (run.steps, run.best, run.images_seen) == (0, None, None)
    assert all(math.isnan(value) for value in (run.loss, run.minutes, run.epochs))
    assert "Without an evaluation: new" in text_report(runs)
    assert "Nothing is logged yet." in Document(runs_page(runs)).text


def test_an_evaluation_behind_the_training_counts(tmp_path):
    folder = write_run(tmp_path / "run", curve(4))
    (folder / "evaluation").mkdir()
    content = {"metrics": dict.fromkeys(METRIC_NAMES, 0.5), "losses": {"box": 1.5}}
    path = folder / "evaluation" / "metrics.json"
    path.write_text(json.dumps({**content, "checkpoint": "runs/a/ckpt-40", "split": "coco_val"}))
    assert RunLog.read("run", folder).best["loss_box"] == 1.5
    # A data set with a name of its own, whose files are found under the recipe's.
    path.write_text(json.dumps({**content, "checkpoint": "runs/a/ckpt-40", "split": "birds_val"}))
    assert RunLog.read("run", folder).best["loss_box"] == 1.5
    path.write_text(json.dumps({**content, "checkpoint": "runs/a/ckpt-40", "split": "coco_test"}))
    assert RunLog.read("run", folder).best is None
    settings = SETTINGS.replace("'coco_val'", "None")
    (folder / "config.gin").write_text(settings.format(rate=0.1, steps=40))
    assert RunLog.read("run", folder).best["step"] == 40
    path.write_text(json.dumps(content))  # That of the training itself, which has its record.
    assert RunLog.read("run", folder).best is None


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["/r/a", "/r/b"], ["a", "b"]),
        (["/r/a/model", "/r/b/model"], ["a", "b"]),
        (["/r/x/a/model", "/r/y/b/model"], ["x/a", "y/b"]),
        (["/r/a", "/r/a/b/a"], ["a", "a/b"]),
        (["/r/" + "x" * 20 + "_1_" + "y" * 20], ["x" * 11 + ".." + "y" * 11]),
        (
            ["/r/" + "x" * 20 + n + "y" * 20 for n in "12"],
            ["x" * 20 + n + "y" * 20 for n in "12"],
        ),
    ],
)
def test_labels_are_short_and_differ(paths, labels):
    found = short_labels(paths)
    assert found == labels and len(set(found)) == len(paths)


def test_settings_that_differ(tmp_path):
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", rate=0.2, settings=SETTINGS + "Momentum.decay = 0.5\n")
    c = write_run(tmp_path / "c", settings="not gin at all (")
    runs = read_runs([a, b, c])
    assert list(differences(runs).items()) == [
        ("ConstantRate.learning_rate", ["0.1", "0.2", None]),
        ("Momentum.decay", [None, "0.5", None]),
    ]
    assert "No settings can be read of: c." in Document(runs_page(runs)).text


def test_folders_that_are_no_runs(finished, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"finishd does not exist\. Did you mean .*finished"
    ):
        read_runs([tmp_path / "finishd"])
    with pytest.raises(FileNotFoundError, match=r"is not a run: .*Runs in it: .*/finished\."):
        read_runs([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Runs beside it: finished\."):
        read_runs([tmp_path / "empty"])
    with pytest.raises(ValueError, match="given twice"):
        read_runs([finished, f"{finished}/"])
    with pytest.raises(ValueError, match="no run was given"):
        read_runs([])


@pytest.fixture
def three(finished, tmp_path):
    """A finished run, one that broke off with larger batches, one without evaluations."""
    rows = [*curve(120, scale=2.0, rate=0.2), evaluated(1200, 0.6)]
    broken = write_run(
        tmp_path / "a_run_with_a_rather_long_name_<2>", rows, [begin(global_batch_size=8)], rate=0.2
    )
    alone = write_run(tmp_path / "alone", curve(2), [begin(), end(20, 1002.0, "SIGTERM")])
    return read_runs([finished, broken, alone])


def test_terminal(three):
    text = text_report(three)
    assert max(map(len, text_report(three[:1]).splitlines())) <= 80
    assert max(map(len, text.splitlines())) <= 110  # With long names, states and numbers of steps.
    assert re.search(r"finished +finished +40 of 40 +4\.0 +25\.0 +1:30 +2\.0000", text)
    assert re.search(r"interrupted .* 0\.600 +0\.600$", text, re.MULTILINE)
    assert re.search(r"<2> +1,200 +0\.600", text)
    assert re.search(r"alone +stopped by SIGTERM", text)
    assert re.search(r"finished +20( +0\.400){5} +–$", text, re.MULTILINE)
    assert re.search(r"ConstantRate\.learning_rate +0\.1 +0\.2 +0\.1", text)
    assert "Without an evaluation: alone" in text


def test_command_needs_no_tensorflow(finished, tmp_path):
    page = tmp_path / "report.html"
    with (finished / "metrics.jsonl").open("a") as file:
        file.write("half a li\n")
    done = without_tensorflow("report", finished, f"--output={page}")
    # Not where in the code the warning is.
    assert re.fullmatch(r"warning: \S+/metrics\.jsonl: 1 of its lines .*\n", done.stderr)
    assert "finished" in done.stdout and f"written: {page}" in done.stdout
    assert Document(page.read_text(encoding="utf-8")).text.startswith("Run: finished ")
    done = without_tensorflow("report", tmp_path / "finishd", status=1)
    assert "Did you mean" in done.stderr
    assert "Traceback" not in done.stderr


def test_page_says_the_same_and_needs_nothing_else(three):
    text = runs_page(three)
    page = Document(text)
    assert not page.unnamed and len(page.ids) == len(set(page.ids))
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert "http" not in text and "url(" not in text and "<2>" not in text
    for told in ("interrupted", "1,200", "9,600", "ConstantRate.learning_rate 0.1 0.2 0.1"):
        assert told in page.text, told
    # Batches differ, so that curves are over images: 1200 steps of 8.
    assert "Over images" in page.text and text.count('y-label"') == 0
    titles = re.findall(r"<h3>([^<]+)</h3>", text)
    assert titles[:6] == [
        "AP",
        "Loss",
        "Loss part: box",
        "Loss part of evaluations: box",
        "Learning rate",
        "Images/s",
    ]
    for value in re.findall(r'(?:d|x|y|cx|cy|style|data-v)="([^"]*)"', text):
        assert not re.search(r"nan|inf\b", value), value


def test_curves_end_where_the_values_are(three):
    text = runs_page(three)
    chart = text[text.index("<h3>AP</h3>") :].split("</svg>")[0]
    # AP 0.4, 0.3 and 0.6 on an axis up to 0.6, at 80 and 160 of 9600 images and at its end.
    dots = [tuple(map(float, dot)) for dot in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)]
    left, right, top, bottom = 54, 438, 14, 254
    expected = [(80, 0.4), (160, 0.3), (9600, 0.6)]
    for (x, y), (images, ap) in zip(dots, expected, strict=True):
        assert x == pytest.approx(left + (right - left) * images / 9600, abs=0.1)
        assert y == pytest.approx(bottom - (bottom - top) * ap / 0.6, abs=0.1)


def test_runs_on_different_data_are_told(finished, tmp_path):
    sessions = [begin(data_dir="/data/one"), end(40, 1090.0)]
    one = write_run(tmp_path / "one", [evaluated(40, 0.3)], sessions)
    assert "AP was measured on different data" in text_report(read_runs([one, finished]))


@pytest.fixture
def written(three, tmp_path):
    path = tmp_path / "page" / "report.html"
    path.parent.mkdir()
    path.write_text(runs_page(three))
    return path


def test_browser_lays_the_page_out_within_its_width(written):
    for width in (1280, 400):
        measured = measure(written, width)
        assert measured["width"] == width and measured["outside"] == 0
        assert measured["buttons"] == 11 + 2 * 14  # The script ran: three tables can be sorted.


def test_browser_draws_the_curves(written):
    picture = written.with_name("page.png")
    browse(written, "--window-size=1280,2400", f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    rows = (pixels != pixels[0, 0]).any(axis=2)
    assert all(part.mean() > 0.01 for part in np.array_split(rows, 3))
    assert not rows[:, :10].any() and not rows[:, -10:].any()
    # Each run's colour is there, more than in its name alone.
    for color in ((31, 111, 196), (196, 89, 15), (10, 125, 102)):
        assert (np.abs(pixels - color).max(axis=2) < 12).sum() > 400, color
