"""`compare_precision` with real processes: stopped, gone on with, and finished."""

import json
import signal

import pytest
from PIL import Image

from tests.process import CLI, Running, cli
from tests.tiny import RUN_RECIPE
from tests.warm import without_ours

STEPS = 40


def flags(data_dir, folder, *more):
    recipe = folder.parent / "tiny.gin"
    recipe.write_text(RUN_RECIPE)
    places = [f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--output_dir={folder}"]
    return ["compare_precision", *places, "--device=cpu", *more]


@pytest.mark.slow(minutes=0.5)
def test_a_stopped_comparison_goes_on_to_its_end(data_dir, tmp_path, warm):
    folder = tmp_path / "precision"
    settings = (f"--num_steps={STEPS}", "--log_every=2", "--dtypes=fp32,bf16")
    command = flags(data_dir, folder, *settings)
    log = folder / "fp32" / "metrics.jsonl"
    with Running(*CLI, *command) as comparison:
        comparison.wait_until(lambda: log.exists() and log.read_text(), limit=200)
        comparison.signal(signal.SIGTERM)
        stopped = comparison.finish(status=128 + signal.SIGTERM)
    assert "SIGTERM: the same command goes on with this comparison." in stopped.stdout
    assert not (folder / "comparison.json").exists()

    stdout = cli(*command, python=warm).stdout
    assert "resuming from" in stdout or "fp32: is there" in stdout or "== fp32: eval" in stdout
    content = json.loads((folder / "comparison.json").read_text())
    assert content["step"][-1] == STEPS
    assert content["settings"]["num_steps"] == STEPS
    runs, difference = content["runs"], content["differences"]["bf16"]
    assert set(runs) == {"fp32", "bf16"}
    # The same seed and data: roundings apart, but not more.
    assert 0 < difference["largest_relative_distance"] < 0.1
    assert runs["bf16"]["loss_at_end"] != runs["fp32"]["loss_at_end"]
    ap = {name: run["metrics"]["AP"] for name, run in runs.items()}
    assert difference["metrics"]["AP"] == pytest.approx(ap["bf16"] - ap["fp32"])
    assert "dtype = 'bf16'" in (folder / "bf16" / "config.gin").read_text()
    with Image.open(folder / "loss_curves.png") as picture:
        assert picture.size[0] == 1000
    lines = stdout.splitlines()
    for row in ("loss at the end", "largest distance", "AP50", "images/s"):
        assert any(line.startswith(row) for line in lines), row

    # Nothing is trained again, and other settings are refused before anything runs.
    stdout = cli(*command, python=warm).stdout
    assert stdout.count("is there") == 2 and "step 2/" not in stdout
    refused = cli(*command, "--num_steps=50", python=warm, status=1)
    assert f"--num_steps was {STEPS}, is 50" in refused.stderr


def test_a_run_that_fails_is_named(data_dir, tmp_path, warm):
    wrong = ("--num_steps=1", "--gin_params=SSD.no_such_setting = 1")
    command = flags(data_dir, tmp_path / "out", *wrong)
    said = cli(*command, python=without_ours(warm), status=1).stderr
    assert "no_such_setting" in said
    assert "`train` of the run fp32 ended with status 1" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtypes=fp32,fp8"], "--dtypes=fp32,fp8; expected some of fp32, bf16, fp16"),
        (["--dtypes=bf16,bf16"], "each once"),
        (["now"], "Unexpected arguments"),
    ],
    ids=str,
)
def test_wrong_command_lines_are_told(data_dir, tmp_path, arguments, message):
    assert message in cli(*flags(data_dir, tmp_path / "out", *arguments), status=2).stderr
    assert not (tmp_path / "out").exists()
