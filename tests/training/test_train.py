"""Whole runs: exact resume, signals, best checkpoint, initial weights, logs."""

import json
import os
import re
import signal
import types

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.run_directory import find_checkpoint
from ssd_centernet.runs.lock import run_lock
from ssd_centernet.train import train
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.length import LoopOptions
from tests.process import CLI, Running
from tests.tiny import tiny_detector, tiny_trainer


def run(recipe, data_dir, model_dir, *params):
    config.parse([recipe], params)
    try:
        return train(model_dir, data_dir)
    finally:
        config.clear()


def tensors(path):
    reader = tf.train.load_checkpoint(find_checkpoint(path))
    names = [n for n in reader.get_variable_to_shape_map() if not n.startswith("_")]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_bits(one, other):
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


def test_ten_steps_equal_five_and_five(tiny_recipe, data_dir, tmp_path, capsys):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    schedule = "train.schedule = @WarmupCosine"
    off = "ConstantRate.learning_rate = 0.01"
    schedule += "\nWarmupCosine.span_run = False"
    recipe = tiny_recipe.read_text().replace("train.schedule = @ConstantRate", schedule)
    tiny_recipe.write_text(recipe.replace(off, ""))
    assert run(tiny_recipe, data_dir, whole, "train.steps = 10") == "finished"
    # Epochs are not scaled to the run, so that the first half may be told to end at step 5.
    assert run(tiny_recipe, data_dir, halves, "train.steps = 5") == "finished"
    assert run(tiny_recipe, data_dir, halves, "train.steps = 10") == "finished"
    assert "at step 5" in capsys.readouterr().out
    assert_same_bits(whole, halves)
    assert any("momentum" in name or "optimizer" in name for name in tensors(whole))
    assert int(tensors(whole)["examples_seen/.ATTRIBUTES/VARIABLE_VALUE"]) == 40
    # Nothing is left to do, and nothing is done.
    capsys.readouterr()
    assert run(tiny_recipe, data_dir, halves, "train.steps = 10") == "finished"
    assert "nothing is left to do: the run is at step 10 of 10" in capsys.readouterr().out
    assert_same_bits(whole, halves)


def test_a_schedule_spans_the_run_and_the_log_says_so(tiny_recipe, data_dir, tmp_path, capsys):
    recipe = tiny_recipe.read_text().replace("ConstantRate\n", "WarmupCosine\n")
    tiny_recipe.write_text(recipe.replace("ConstantRate.learning_rate = 0.01", ""))
    run(tiny_recipe, data_dir, tmp_path / "r", "train.steps = 6")
    assert "the learning rate is scaled to this run of 2 epochs" in capsys.readouterr().out
    lines = [json.loads(one) for one in (tmp_path / "r" / "metrics.jsonl").open()]
    # With the epochs of the recipe all six steps would be in the warm-up.
    rates = {line["step"]: line["learning_rate"] for line in lines if line["kind"] == "train"}
    assert rates[2] > 3 * rates[6] > 0


def test_the_seed_decides_and_must_stay(tiny_recipe, data_dir, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        run(tiny_recipe, data_dir, tmp_path / name, "train.steps = 1", f"train.seed = {seed}")
    a, b = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    kernel = next(name for name in a if "stem_conv" in name)
    assert not np.array_equal(a[kernel], b[kernel])
    with pytest.raises(ValueError, match=r"began with --seed=1, but this call has --seed=2"):
        run(tiny_recipe, data_dir, tmp_path / "a", "train.steps = 2", "train.seed = 2")


def test_evaluation_best_checkpoint_and_logs(tiny_recipe, data_dir, tmp_path):
    model_dir = tmp_path / "run"
    settings = ("train.steps = 4", "train.evaluate_every = 2")
    assert run(tiny_recipe, data_dir, model_dir, *settings) == "finished"
    best = json.loads((model_dir / "best" / "metrics.json").read_text())
    assert best["step"] in (2, 4)
    assert find_checkpoint(model_dir / "best").endswith(f"ckpt-{best['step']}")
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    assert [line["step"] for line in evaluations] == [2, 4]
    assert best["AP"] == max(line["AP"] for line in evaluations)
    assert {"AP50", "ARl", "loss_class", "loss_box"} <= evaluations[0].keys()
    windows = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in windows] == [1, 2, 4]
    wanted = {"class", "box", "total", "learning_rate", "epoch", "gradient_norm"}
    wanted |= {"images_per_second", "data_wait_share", "eta_seconds"}
    assert wanted <= windows[-1].keys()
    assert windows[-1]["epoch"] == pytest.approx(4 / 3)
    assert list((model_dir / "train").glob("events.*"))
    assert list((model_dir / "eval").glob("events.*"))
    assert (model_dir / "config.gin").exists()
    assert (model_dir / "mscoco_label_map.pbtxt").exists()


def test_early_stop(tiny_recipe, data_dir, tmp_path, capsys):
    settings = ("train.steps = 20", "train.evaluate_every = 1", "train.early_stop_patience = 2")
    rate = "ConstantRate.learning_rate = 0.0"
    assert run(tiny_recipe, data_dir, tmp_path / "r", *settings, rate) == "stopped early"
    said = capsys.readouterr().out
    assert "stopped early: 2 evaluations" in said
    seconds = r"\d+\.\d s"
    took = rf"^  took: network {seconds}, metric {seconds}, report {seconds}$"
    assert len(re.findall(took, said, re.MULTILINE)) >= 3
    best = json.loads((tmp_path / "r" / "best" / "metrics.json").read_text())["step"]
    assert find_checkpoint(tmp_path / "r").endswith(f"ckpt-{best + 2}")


def test_another_model_in_the_directory_is_refused(tiny_recipe, data_dir, tmp_path):
    run(tiny_recipe, data_dir, tmp_path / "r", "train.steps = 1")
    with pytest.raises(ValueError, match="choose another --model_dir"):
        run(tiny_recipe, data_dir, tmp_path / "r", "train.steps = 2", "ResNet.stem_width = 4")


def test_frozen_layers_of_random_weights_are_told_or_trained(
    tiny_recipe, data_dir, tmp_path, capsys
):
    freeze = ("train.steps = 1", "train.freeze = ('stem_',)")
    with pytest.raises(ValueError, match="would stay random to the end"):
        run(tiny_recipe, data_dir, tmp_path / "neither", *freeze)
    run(tiny_recipe, data_dir, tmp_path / "held", *freeze, "train.freeze_random = True")
    out = capsys.readouterr().out
    assert "note: train.freeze = ('stem_',) holds layers at random weights" in out
    held = int(re.search(r"(\d+) variables to train", out)[1])
    run(tiny_recipe, data_dir, tmp_path / "free", *freeze, "train.freeze_random = False")
    out = capsys.readouterr().out
    assert "holds layers" not in out
    assert int(re.search(r"(\d+) variables to train", out)[1]) == held + 3
    begin = f"train.fine_tune_checkpoint = {str(tmp_path / 'free')!r}"
    run(tiny_recipe, data_dir, tmp_path / "b", *freeze, "train.freeze_random = False", begin)
    assert f"{held} variables to train" in capsys.readouterr().out


def test_initial_weights_are_not_a_resume(tiny_recipe, data_dir, tmp_path, capsys):
    run(tiny_recipe, data_dir, tmp_path / "first", "train.steps = 2")
    init = f"train.fine_tune_checkpoint = {str(tmp_path / 'first')!r}"
    rate = "ConstantRate.learning_rate = 0.0"
    run(tiny_recipe, data_dir, tmp_path / "second", "train.steps = 1", init, rate)
    said = capsys.readouterr().out
    count = len(tiny_detector().variables)
    assert f"(ssd_centernet, detection): {count} variables restored" in said
    assert f"  restored    ... and {count - 5} more" in said
    # What the console has no room for is in the run's directory.
    report = (tmp_path / "second" / "initial_weights.txt").read_text()
    assert len(re.findall("^  restored", report, re.MULTILINE)) == count
    first, second = tensors(tmp_path / "first"), tensors(tmp_path / "second")
    kernel = next(name for name in first if "head.Sclass0.Skernel" in name)
    np.testing.assert_array_equal(first[kernel], second[kernel])
    assert int(second["step/.ATTRIBUTES/VARIABLE_VALUE"]) == 1


def test_backbone_alone_from_another_run(tiny_recipe, data_dir, tmp_path, capsys):
    run(tiny_recipe, data_dir, tmp_path / "first", "train.steps = 1")
    settings = (
        f"train.fine_tune_checkpoint = {str(tmp_path / 'first')!r}",
        "train.fine_tune_checkpoint_type = 'classification'",
        "train.fine_tune_exclude = ('stem_',)",
        "ConstantRate.learning_rate = 0.0",
        "train.steps = 1",
        "train.seed = 5",
    )
    run(tiny_recipe, data_dir, tmp_path / "second", *settings)
    first, second = tensors(tmp_path / "first"), tensors(tmp_path / "second")
    same = {
        name.removeprefix("weights/").split(".S")[0]
        for name in first
        if name.startswith("weights/")
        and ".Skernel" in name
        and np.array_equal(first[name], second[name])
    }
    assert same == {"group1_block1_1_conv", "group1_block1_2_conv"}
    with pytest.raises(ValueError, match="one of classification, detection, full, got 'partial'"):
        run(
            tiny_recipe,
            data_dir,
            tmp_path / "third",
            *settings,
            "train.fine_tune_checkpoint_type = 'partial'",
        )


def test_best_is_replaced_only_by_a_better_one(tmp_path):
    trainer = tiny_trainer()
    checkpoints = RunCheckpoints(trainer, tmp_path, seed=0)
    assert checkpoints.keep_best({"AP": 0.2}, "AP", higher_is_better=True)
    trainer.step.assign(3)
    assert not checkpoints.keep_best({"AP": 0.2}, "AP", higher_is_better=True)
    assert checkpoints.keep_best({"AP": 0.3}, "AP", higher_is_better=True)
    assert find_checkpoint(tmp_path / "best").endswith("ckpt-3")
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    with pytest.raises(KeyError, match="keep_best='mAP'"):
        checkpoints.keep_best({"AP": 0.3}, "mAP", higher_is_better=True)


@pytest.mark.parametrize("undefined", [-1.0, float("nan")])
def test_undefined_metric_is_never_the_best(tmp_path, undefined):
    """COCO's AP is -1 without objects; kept, it would stay the best of a run of NaN for ever."""
    checkpoints = RunCheckpoints(tiny_trainer(), tmp_path, seed=0)
    for higher in (True, False):
        assert not checkpoints.keep_best({"AP": undefined}, "AP", higher_is_better=higher)
    assert not (tmp_path / "best").exists()
    assert checkpoints.keep_best({"AP": 0.0}, "AP", higher_is_better=True)


def test_loss_part_as_the_best_is_the_lowest(tiny_recipe, data_dir, tmp_path):
    params = ("train.steps = 4", "train.evaluate_every = 1", "train.keep_best = 'loss_class'")
    run(tiny_recipe, data_dir, tmp_path / "r", *params)
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "eval"]
    best = json.loads((tmp_path / "r" / "best" / "metrics.json").read_text())
    assert len({row["loss_class"] for row in rows}) > 1
    assert best["loss_class"] == min(row["loss_class"] for row in rows)


@pytest.mark.parametrize(
    "settings", [{"log_every": 0}, {"checkpoint_every": 0}, {"keep_best": "mAP"}], ids=str
)
def test_options_that_would_fail_later_are_refused(settings):
    with pytest.raises(ValueError, match=f"train.{next(iter(settings))} is"):
        LoopOptions(total_steps=1, **settings)


def test_an_unused_setting_stops_the_run_before_it_begins(tiny_recipe, data_dir, tmp_path):
    with pytest.raises(config.ConfigError, match="WarmupCosine"):
        run(tiny_recipe, data_dir, tmp_path / "r", "train.steps = 1", "WarmupCosine.peak = 2.0")


def test_a_terminated_run_saves_and_goes_on(tiny_recipe, data_dir, tmp_path):
    model_dir = tmp_path / "run"
    flags = [f"--gin_file={tiny_recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    flags += ["--num_steps=100000", "--checkpoint_every=100000", "--device=cpu"]
    log = model_dir / "metrics.jsonl"
    with Running(*CLI, "train", *flags) as training:
        training.wait_until(lambda: log.exists() and log.read_text().count("\n") > 3)
        training.signal(signal.SIGTERM)
        ended = training.finish(status=0)
    assert "SIGTERM: saved" in ended.stdout
    step = int(find_checkpoint(model_dir).rsplit("-", 1)[1])
    assert step > 0
    assert int(tensors(model_dir)["step/.ATTRIBUTES/VARIABLE_VALUE"]) == step
    run(tiny_recipe, data_dir, model_dir, f"train.steps = {step + 1}")
    assert find_checkpoint(model_dir).endswith(f"-{step + 1}")


def test_other_normalisation_than_the_detectors_is_refused(tiny_recipe, data_dir, tmp_path):
    with pytest.raises(ValueError, match=r"normalises with mean=\(0.5, 0.5, 0.5\)"):
        run(
            tiny_recipe,
            data_dir,
            tmp_path / "r",
            "train.steps = 1",
            "SSDAugment.mean = (0.5, 0.5, 0.5)",
        )


def test_input_options_are_set_through_the_recipe(tiny_recipe, data_dir, tmp_path):
    settings = ("train.batches = @training_batches", "training_batches.cache = True")
    assert run(tiny_recipe, data_dir, tmp_path / "r", "train.steps = 1", *settings) == "finished"
    assert "training_batches.cache = True" in (tmp_path / "r" / "config.gin").read_text()


@pytest.mark.parametrize("damage", ["removed", "emptied"])
def test_run_whose_list_of_checkpoints_is_lost_goes_on(tmp_path, damage):
    """Step 10 is the last, although '9' sorts behind it; a checkpoint without data is none."""
    trainer = tiny_trainer()
    checkpoints = RunCheckpoints(trainer, tmp_path, seed=0)
    for step in (9, 10):
        trainer.step.assign(step)
        checkpoints.save()
    (tmp_path / "ckpt-11.index").write_bytes((tmp_path / "ckpt-10.index").read_bytes())
    (tmp_path / "checkpoint").unlink()
    if damage == "emptied":
        (tmp_path / "checkpoint").touch()
    assert find_checkpoint(tmp_path) == str(tmp_path / "ckpt-10")
    again = RunCheckpoints(tiny_trainer(), tmp_path, seed=0)
    assert again.resume() == str(tmp_path / "ckpt-10")
    assert int(again.trainer.step) == 10
    assert again.manager.checkpoints == [str(tmp_path / "ckpt-9"), str(tmp_path / "ckpt-10")]


def test_second_training_in_a_directory_is_refused(tiny_recipe, data_dir, tmp_path):
    folder = tmp_path / "run"
    with run_lock(folder), pytest.raises(BlockingIOError, match=rf"process {os.getpid()}\b"):
        run(tiny_recipe, data_dir, folder, "train.steps = 1")
    assert [path.name for path in folder.iterdir()] == [".lock"]
    assert run(tiny_recipe, data_dir, folder, "train.steps = 1") == "finished"


@pytest.mark.parametrize("name", ["run [1]", "run*", "what?"])
def test_directory_whose_checkpoints_could_not_be_read_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="wildcards"):
        RunCheckpoints(tiny_trainer(), tmp_path / name, seed=0)
    assert not (tmp_path / name).exists()


def test_directory_with_spaces_and_umlauts_resumes(tmp_path):
    path = RunCheckpoints(tiny_trainer(), tmp_path / "läufe 1, (a)", seed=0).save()
    assert RunCheckpoints(tiny_trainer(), tmp_path / "läufe 1, (a)", seed=0).resume() == path


def test_a_missing_evaluation_split_says_how_to_train_without(tiny_recipe, data_dir, tmp_path):
    settings = ("train.eval_split = 'coco_other'", "train.evaluate_every = 1")
    with pytest.raises(FileNotFoundError, match="--mode=train"):
        run(tiny_recipe, data_dir, tmp_path / "r", "train.steps = 1", *settings)


def test_a_kill_between_the_renames_loses_no_best(tmp_path):
    trainer = tiny_trainer()
    checkpoints = RunCheckpoints(trainer, tmp_path, seed=0)
    for step, value in ((1, 0.2), (2, 0.3)):
        trainer.step.assign(step)
        checkpoints.keep_best({"AP": value}, "AP", higher_is_better=True)
        checkpoints.finish()
        # As a kill leaves it: the new one complete, the old one moved away.
        if step == 1:
            (tmp_path / "best").rename(tmp_path / "first")
    (tmp_path / "best").rename(tmp_path / ".best.new")
    (tmp_path / "first").rename(tmp_path / ".best.old")
    again = RunCheckpoints(tiny_trainer(), tmp_path, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert find_checkpoint(tmp_path / "best").endswith("ckpt-2")
    assert not again.keep_best({"AP": 0.25}, "AP", higher_is_better=True)


def test_a_schedule_that_does_not_fit_the_run_is_said(tiny_recipe, data_dir, tmp_path, capsys):
    settings = ["ConstantRate.warmup_steps = 5", "train.eval_split = None"]
    run(tiny_recipe, data_dir, tmp_path / "short", *settings, "train.steps = 2")
    assert "warm-up of 5 steps is not shorter than the run of 2" in capsys.readouterr().out
    run(tiny_recipe, data_dir, tmp_path / "long", *settings, "train.steps = 6")
    assert "not shorter" not in capsys.readouterr().out


def test_a_step_compiled_by_xla_trains_the_same(tiny_recipe, data_dir, tmp_path):
    settings = ("train.steps = 4", "train.ema_decay = 0.5", "train.accumulate_steps = 2")
    run(tiny_recipe, data_dir, tmp_path / "graph", *settings)
    run(tiny_recipe, data_dir, tmp_path / "xla", *settings, "train.jit_compile = True")
    graph, xla = tensors(tmp_path / "graph"), tensors(tmp_path / "xla")
    assert graph.keys() == xla.keys()
    for name, value in graph.items():
        # XLA fuses and so rounds in another order. A small entry of a gradient is a sum of large
        # ones, which is as exact as they are: the tensor's largest value is the measure.
        scale = np.abs(value).max() + 1e-6
        np.testing.assert_allclose(xla[name] / scale, value / scale, atol=2e-4, err_msg=name)


def test_xla_is_refused_between_processes():
    with pytest.raises(ValueError, match="train.jit_compile is True for 2 processes"):
        tiny_trainer(jit_compile=True, communicator=types.SimpleNamespace(size=2, replicas=1))
