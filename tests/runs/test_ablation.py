"""The tables of a study, from files as trainings leave them, and what is refused."""

import json
import math
import os

import pytest

from ssd_centernet.cli.ablate import _METRICS
from ssd_centernet.evaluation.result import METRIC_NAMES
from ssd_centernet.runs import ablation
from ssd_centernet.runs.ablation import Plan, check_unchanged, read_run, train_runs
from ssd_centernet.runs.ablation_report import Ablation

DATA = "/data/scenes"
SETTINGS = {"train.batch_size": "4", "train.steps": "10"}


def write_run(study, name, seed, ap, *, best=0.0, batch=4, reason="finished", usage=True):
    """Write what a run of ten steps and two evaluations leaves."""
    steps = 10
    folder = study / name / f"seed{seed}"
    folder.mkdir(parents=True)
    lines = [
        {"kind": "train", "step": step, "total": 1.0, "images_per_second": pace, "time": 1e9 + step}
        for step, pace in ((1, 80.0), (2, 20.0), (steps, 40.0))
    ]
    for step, value in ((5, best), (steps, ap)):
        numbers = dict.fromkeys(METRIC_NAMES, value) | {"APl": -1.0, "AP50": 2 * value}
        lines.append({"kind": "eval", "step": step, "time": 1e9 + 90, **numbers})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    begin = {"event": "begin", "step": 0, "time": 1e9, "data_dir": DATA, "total_steps": steps}
    begin |= {"global_batch_size": batch, "steps_per_epoch": 2}
    end = {"event": "end", "step": steps, "time": 1e9 + 120, "reason": reason}
    sessions = [begin, end] if reason else [begin]
    (folder / "sessions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in sessions))
    texts = {**SETTINGS, "train.seed": str(seed)}
    (folder / "config.gin").write_text("".join(f"{k} = {v}\n" for k, v in texts.items()))
    (folder / "ckpt-10.index").touch()
    if usage:
        told = [{"status": 0, "seconds": 130.0, "processor_seconds": 90.0, "sessions": 1}]
        folder.with_name(f"seed{seed}.json").write_text(json.dumps({"processes": told}))
    return folder


def read(study, names, seeds, **options):
    return Ablation([read_run(study, name, seed) for name in names for seed in seeds], **options)


def three_seeds(tmp_path):
    for name, values in {
        "base": (0.30, 0.40, 0.50),
        "ema": (0.31, 0.43, 0.52),
        "giou": (0.210, 0.311, 0.409),
    }.items():
        for seed, value in enumerate(values):
            write_run(tmp_path, name, seed, value)
    return read(tmp_path, ("base", "ema", "giou"), range(3))


def test_the_table_by_hand(tmp_path):
    # Of `ema` the differences are 0.01, 0.03, 0.02; of `giou` -0.09, -0.089, -0.091.
    half = [4.302652730 * deviation / math.sqrt(3) for deviation in (0.01, 0.001)]
    text = three_seeds(tmp_path).text()
    rows = [line.split() for line in text.splitlines()]
    assert rows[4] == ["base", "3", "0.4000", "0.1000", "-"]
    ema = ["ema", "3", "0.4200", "0.1054", "+0.0200", "±", f"{half[0]:.4f}"]
    assert rows[5] == [*ema, "within", "the", "noise"]
    assert rows[6] == ["giou", "3", "0.3100", "0.0995", "-0.0900", "±", f"{half[1]:.4f}", "worse"]
    assert ["giou", "0.2100", "0.3110", "0.4090"] in rows
    # 40 images, 10 steps; a median of 40 images/s with 4 a step; 120 s, and 90 s of processors.
    assert ["base", "40", "10", "100.0", "2.0", "1.5"] in rows
    assert max(map(len, text.splitlines())) <= 80
    assert "2 comparisons: the verdicts hold for all of them together with 95 %" in text


def test_a_long_name_fits_a_terminal(tmp_path):
    for seed in range(3):
        for name in ("base", "n" * 24):
            write_run(tmp_path, name, seed, 0.123)
    text = read(tmp_path, ("base", "n" * 24), range(3)).text()
    assert max(map(len, text.splitlines())) <= 80


def test_json_and_markdown_say_the_same(tmp_path):
    ablation_ = three_seeds(tmp_path)
    for path in ablation_.save(tmp_path / "out", study="a.yaml"):
        assert path.startswith(f"{tmp_path}/out/ablation.")
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert content["study"] == "a.yaml" and content["baseline"] == "base"
    ema = content["differences"]["ema"]
    assert ema["seeds"] == [0, 1, 2]
    assert ema["mean"] == pytest.approx(0.02)
    assert ema["p"] == pytest.approx(1 - math.sqrt(12 / 14))
    assert ema["p_of_all"] == pytest.approx(ema["p"])  # The larger of two.
    assert ema["interval"][0] + ema["interval"][1] == pytest.approx(0.04)
    assert ema["verdict"] == "within the noise"
    assert content["differences"]["giou"]["p_of_all"] == pytest.approx(
        2 * content["differences"]["giou"]["p"]
    )
    run = content["variants"]["ema"]["runs"][1]
    assert (run["seed"], run["state"], run["images"]) == (1, "finished", 40)
    assert run["last"]["AP"] == 0.43 and run["last"]["step"] == 10
    page = (tmp_path / "out" / "ablation.md").read_text()
    assert "| base | 3 | 0.4000 | 0.1000 | - |  |" in page
    assert "| giou | 3 | 0.3100 | 0.0995 | -0.0900 ± 0.0025 | worse |" in page


def test_another_metric_and_the_best_evaluation(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "base", seed, 0.25, best=0.375)
    found = read(tmp_path, ("base",), range(2), metric="AP50", evaluation="best")
    assert found.values == {"base": {0: 0.75, 1: 0.75}}
    assert any("best of several evaluations" in note for note in found.notes())
    assert read(tmp_path, ("base",), range(2)).values == {"base": {0: 0.25, 1: 0.25}}
    undefined = read(tmp_path, ("base",), range(2), metric="APl")
    assert undefined.values == {"base": {}}
    assert "APl is not defined for base/seed0, base/seed1." in undefined.notes()
    assert undefined.to_dict()["variants"]["base"]["mean"] is None


def test_one_seed_has_no_verdict(tmp_path):
    for name, value in (("base", 0.1), ("ema", 0.9)):
        write_run(tmp_path, name, 0, value)
    found = read(tmp_path, ("base", "ema"), [0])
    assert found.verdicts == {"ema": None}
    assert "+0.8000" in found.text() and "no verdict" in found.text()
    assert "One seed says nothing about chance: no verdict." in found.text()


def test_only_finished_runs_count_and_only_pairs_are_compared(tmp_path):
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        write_run(tmp_path, "base", seed, value)
    write_run(tmp_path, "ema", 0, 0.2)
    write_run(tmp_path, "ema", 1, 0.9, reason="SIGTERM")
    found = read(tmp_path, ("base", "ema"), range(3))
    assert found.values["ema"] == {0: 0.2}
    assert found.differences["ema"].mean == pytest.approx(0.1)
    [missing] = [note for note in found.notes() if "Without a result" in note]
    assert "ema/seed1 (stopped by SIGTERM at step 10), ema/seed2 (not begun)" in missing


def test_a_run_without_the_evaluation_of_its_end_is_not_finished(tmp_path):
    folder = write_run(tmp_path, "base", 0, 0.5)
    assert read_run(tmp_path, "base", 0).complete
    log = folder / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert not read_run(tmp_path, "base", 0).complete


def test_unequal_budgets_are_told(tmp_path):
    write_run(tmp_path, "base", 0, 0.1)
    write_run(tmp_path, "ema", 0, 0.1, batch=8)
    [told] = [n for n in read(tmp_path, ("base", "ema"), [0]).notes() if "as many images" in n]
    assert "base/seed0 40, ema/seed0 80" in told


def test_processor_time_is_told_only_where_all_of_it_was_measured(tmp_path):
    write_run(tmp_path, "base", 0, 0.1)
    folder = write_run(tmp_path, "ema", 0, 0.1)
    sessions = folder / "sessions.jsonl"
    # A process that was killed together with the study began here, and nobody measured it.
    sessions.write_text(sessions.read_text() + sessions.read_text())
    assert read_run(tmp_path, "base", 0).processor_minutes == 1.5
    assert read_run(tmp_path, "ema", 0).processor_minutes is None
    folder.with_name("seed0.json").write_text("{")
    assert read_run(tmp_path, "ema", 0).processor_minutes is None


def plan(name="base", data=(DATA,), **changes):
    return Plan(
        name=name,
        arguments=["--gin_file=a"],
        steps=10,
        batch_size=4,
        data=list(data),
        settings=SETTINGS | changes,
    )


def test_runs_that_were_trained_otherwise_are_refused(tmp_path):
    folder = write_run(tmp_path, "base", 0, 0.1)
    write_run(tmp_path, "base", 1, 0.1)
    check_unchanged([plan()], [0, 1, 2], tmp_path)
    for other, message in (
        (plan(**{"train.steps": "12"}), "train.steps was 10, is 12"),
        (plan(**{"train.clip_norm": "1.0"}), "train.clip_norm was not there, is 1.0"),
        (plan(data=["/other"]), f"its data was {DATA}, is /other"),
        (plan(data=[DATA, "/more"]), f"its data was {DATA}, is {DATA}, /more"),
    ):
        with pytest.raises(ValueError, match="was trained in another way") as told:
            check_unchanged([other], [0, 1, 2], tmp_path)
        assert message in str(told.value) and str(folder) in str(told.value)
    (folder.with_name("seed1") / "config.gin").write_text("train.seed = 0\n")
    with pytest.raises(ValueError, match=r"seed1 .*train\.seed was 0, is 1"):
        check_unchanged([plan()], [0, 1], tmp_path)
    # What has learnt nothing may be given other settings.
    for one in (folder, folder.with_name("seed1")):
        (one / "ckpt-10.index").unlink()
    check_unchanged([plan(**{"train.steps": "12"})], [0, 1], tmp_path)


def test_a_run_that_fails_does_not_keep_the_others_from_their_turn(tmp_path, monkeypatch):
    trained = []

    def command(words):
        name = next(one for one in words if one.startswith("--model_dir=")).rpartition("/runs/")[2]
        trained.append(name)
        if name == "ema/seed0":
            return 1
        if name != "ema/seed1":
            write_run(tmp_path / "runs", *name.split("/seed"), 0.5, usage=False)
        return 0

    monkeypatch.setattr(ablation, "run_command", command)
    write_run(tmp_path / "runs", "base", 0, 0.5)
    said = []
    failed = train_runs([plan(), plan("ema")], [0, 1], tmp_path / "runs", say=said.append)
    # All variants of a seed before the next one; what is there is not trained again.
    assert trained == ["ema/seed0", "base/seed1", "ema/seed1"]
    assert failed == [
        "ema/seed0 ended with status 1",
        "ema/seed1 ended without the evaluation of its last step",
    ]
    assert said[0] == "== base/seed0 (1 of 4): is there"
    assert read_run(tmp_path / "runs", "base", 1).processor_minutes is not None


def test_what_a_killed_study_was_writing_is_removed_by_the_next(tmp_path):
    write_run(tmp_path, "base", 0, 0.3)
    names = ("base/.seed0.json", ".ablation.json", ".ablation.md")
    left = [tmp_path / f"{name}.ssd-0123456789.tmp" for name in names]
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    assert train_runs([plan()], [0], tmp_path, say=lambda line: None) == []
    assert [path.exists() for path in left] == [False, True, True]
    read(tmp_path, ["base"], [0]).save(tmp_path)
    assert not any(path.exists() for path in left)


def test_the_metrics_of_the_flag_are_all_there_are():
    assert tuple(_METRICS) == METRIC_NAMES
