"""`ablate` with real trainings: killed, stopped, gone on with, finished, changed; its errors."""

import json
import signal
import statistics

import pytest
import yaml

from tests.process import CLI, ROOT, Running, cli, environment
from tests.tiny import RUN_RECIPE
from tests.warm import without_ours

STEPS = 60
STUDY = """\
base:
  gin_file: {recipe}
  data_dir: {data}
  num_steps: {steps}
  device: cpu
  log_every: 2
  gin_params: [train.pictures = 0]
variants:
  ema:
    batch_size: 8
    gin_params: ["train.ema_decay = 0.9"]
seeds: [0, 1]
"""


def write_study(folder, data_dir, text=STUDY, steps=STEPS):
    recipe, path = folder / "tiny.gin", folder / "study.yaml"
    recipe.write_text(RUN_RECIPE.replace("evaluate_every = 3", "evaluate_every = 1000"))
    path.write_text(text.format(recipe=recipe, data=data_dir, steps=steps))
    return path


def events(folder):
    path = folder / "sessions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def has_trained(folder):
    log = folder / "metrics.jsonl"
    return log.exists() and log.read_text()


def flags(path, *more):
    return ["ablate", f"--study={path}", f"--output_dir={path.parent}/out", *more]


@pytest.mark.slow(minutes=1)
def test_a_study_goes_on_after_a_kill_and_a_stop_and_is_told_as_its_runs_are(
    data_dir, tmp_path, warm
):
    path, out = write_study(tmp_path, data_dir), tmp_path / "out"
    command, first, second = flags(path), out / "base" / "seed0", out / "ema" / "seed0"

    with Running(warm, "-m", "ssd_centernet", *command) as study:
        study.wait_until(lambda: has_trained(first), limit=200)
        study.signal(signal.SIGKILL)
        study.finish(status=-signal.SIGKILL)
        # The training ends with the study, and saves what it has learnt.
        with Running("sleep", 100) as waiting:
            waiting.wait_until(lambda: events(first)[-1]["event"] == "end", limit=60)
    assert events(first)[-1]["reason"] in ("SIGTERM", "finished")

    def goes_on():
        begun = [one for one in events(first) if one["event"] == "begin"]
        return len(begun) > 1 or has_trained(second)

    with Running(*CLI, *command) as study:
        study.wait_until(goes_on, limit=200)
        study.signal(signal.SIGTERM)
        stopped = study.finish(status=128 + signal.SIGTERM)
    assert "SIGTERM: the same command goes on with this study." in stopped.stdout
    assert "ema/seed1 (not begun)" in " ".join(stopped.stdout.split())
    assert "Traceback" not in stopped.text

    stdout = cli(*command, python=warm).stdout
    assert "resuming from" in stdout or "== base/seed0 (1 of 4): is there" in stdout
    content = json.loads((out / "ablation.json").read_text())
    # As many images: half of the steps with twice the batch.
    costs = {name: (one["steps"], one["images"]) for name, one in content["variants"].items()}
    assert costs == {"base": (STEPS, 4 * STEPS), "ema": (STEPS // 2, 4 * STEPS)}
    measured = {}
    for name in ("base", "ema"):
        lines = [
            json.loads((out / name / f"seed{seed}" / "metrics.jsonl").read_text().splitlines()[-1])
            for seed in (0, 1)
        ]
        assert [one["kind"] for one in lines] == ["eval", "eval"]
        measured[name] = [one["AP"] for one in lines]
        assert content["variants"][name]["mean"] == pytest.approx(statistics.fmean(measured[name]))
    differences = [a - b for a, b in zip(measured["ema"], measured["base"], strict=True)]
    assert content["differences"]["ema"]["mean"] == pytest.approx(statistics.fmean(differences))
    assert content["differences"]["ema"]["seeds"] == [0, 1]
    # That of the killed study was measured by nobody.
    runs = content["variants"]["base"]["runs"]
    assert runs[0]["processor_minutes"] is None and runs[1]["processor_minutes"] >= 0

    assert cli(*command, python=warm).stdout.count("): is there") == 4

    # Nothing is read but the runs; other settings are refused before anything runs.
    report = cli(*flags(path, "--report", "--metric=AP50"), python=warm).stdout
    assert "AP50 after the last step, 2 seeds" in report and "\nstep " not in report
    write_study(tmp_path, data_dir, STUDY.replace("0.9", "0.8"))
    refused = cli(*command, python=warm, status=1)
    assert f"{second} was trained in another way" in refused.stderr
    assert "train.ema_decay was 0.9, is 0.8" in refused.stderr
    assert "== " not in refused.stdout


def test_a_training_ends_with_its_study(data_dir, tmp_path, warm):
    path, run = write_study(tmp_path, data_dir, steps=20_000), tmp_path / "out" / "base" / "seed0"
    with Running(warm, "-m", "ssd_centernet", *flags(path)) as study:
        study.wait_until(lambda: has_trained(run), limit=200)
        study.signal(signal.SIGKILL)
        study.finish(status=-signal.SIGKILL)
    with Running("sleep", 100) as waiting:
        waiting.wait_until(lambda: events(run)[-1]["event"] == "end", limit=60)
    assert events(run)[-1]["reason"] == "SIGTERM"
    assert list(run.glob("ckpt-*.index"))


def test_all_variants_are_shown_before_anything_runs(data_dir, tmp_path, warm):
    path = write_study(tmp_path, data_dir)
    stdout = cli(*flags(path, "--dry_run"), python=warm).stdout
    lines = [line for line in stdout.splitlines() if line.startswith("ssd_centernet train ")]
    assert len(lines) == 4
    assert "ema: 30 steps of 8, 240 images" in stdout
    assert "--num_steps=30 --seed=1" in lines[3] and lines[3].endswith("out/ema/seed1")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_studies_that_are_here_can_be_trained(data_dir, tmp_path, warm, path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo").symlink_to(data_dir)
    command = ["ablate", f"--study={path}", "--output_dir=out", "--dry_run", "--json"]
    plans = json.loads(cli(*command, python=warm, cwd=tmp_path).stdout.splitlines()[-1])
    variants = yaml.safe_load(path.read_text(encoding="utf-8"))["variants"]
    assert [plan["name"] for plan in plans] == ["base", *variants] and len(variants) > 1
    assert len({plan["steps"] * plan["batch_size"] for plan in plans}) == 1


WRONG = {
    # What is wrong in the last variant -> status, message.
    "syntax": ('["train.clip_norm = "]', "line 12 (variant last): The value cannot be read"),
    "no such setting": ('["train.clip_nrom = 1.0"]', "has no parameter 'clip_nrom'"),
    "no such part": ('["train.optimizer = @Adamm"]', "Nothing is named 'Adamm'"),
    "no effect": ('["FocalMultiBoxLoss.gamma = 1.0"]', "FocalMultiBoxLoss.gamma"),
    "of another kind": ("[\"train.clip_norm = 'a'\"]", "train.clip_norm is 'a'"),
    "of the network": ('["ResNet.widths = (8, 8)"]', "ResNet needs blocks, widths and strides"),
    "no recipe": ("{gin_file: no_such_recipe}", "no_such_recipe"),
    "a flag's value": ("{dtype: fp8}", "fp8"),
    "no evaluation": ('["train.eval_split = None"]', "it is never evaluated"),
    "the same": ('["train.seed = 0"]', "the same settings as base"),
    "length": ('["train.steps = 5"]', "sees 20 images, and the budget is 240"),
    "uneven": ("{batch_size: 7}", "'budget: {images: 224}' is the nearest"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_in_a_variant_are_told_before_anything_runs(data_dir, tmp_path, warm, name):
    text, message = WRONG[name]
    study = STUDY.replace("seeds:", f"  last: {text.replace('{', '{{').replace('}', '}}')}\nseeds:")
    said = cli(*flags(write_study(tmp_path, data_dir, study)), python=warm, status=1)
    assert message in said.stderr
    assert f"{tmp_path}/study.yaml, line 12" in said.stderr
    assert "Traceback" not in said.stderr and "== " not in said.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report", "--dry_run"], "contradict each other"),
        (["--json"], "--json belongs to --dry_run or --report"),
        (["--only=emma"], "--only=emma; expected one of the variants base, ema"),
        (["now"], "Unexpected arguments"),
        (["--metric=mAP"], "AP50"),
    ],
    ids=str,
)
def test_wrong_command_lines_are_told(data_dir, tmp_path, warm, arguments, message):
    path = write_study(tmp_path, data_dir)
    python = without_ours(warm)
    assert message in cli(*flags(path, *arguments), python=python, status=2).stderr
    assert not (tmp_path / "out").exists()


def test_a_report_of_nothing_is_refused(data_dir, tmp_path, warm):
    said = cli(*flags(write_study(tmp_path, data_dir), "--report"), python=warm, status=1).stderr
    assert "there is no run of" in said


def test_a_study_says_what_is_imported_as_a_command_line_does(data_dir, tmp_path, warm):
    """It is code of whoever gives it, as `--gin_params` are."""
    (tmp_path / "loud.py").write_text("print('imported', flush=True)\n")
    text = STUDY.replace("seeds:", '  last: ["import loud"]\nseeds:')
    path = write_study(tmp_path, data_dir, text)
    env = environment(PYTHONPATH=f"{ROOT}:{tmp_path}")
    said = cli(*flags(path, "--dry_run"), python=warm, env=env, status=1)
    assert "imported" in said.stdout and "the same settings as base" in said.stderr


def test_who_asks_train_for_several_seeds_is_led_here(warm):
    said = cli("train", "--seeds=0,1", python=without_ours(warm), status=2).stderr
    assert "`ssd_centernet ablate` trains with several" in said
