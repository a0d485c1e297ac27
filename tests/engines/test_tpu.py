"""What docs/distributed.md promises of the cores of a TPU slice, on a stand-in for one."""

import pytest
import tensorflow as tf

from ssd_centernet.runtime.tpu import run_compiled
from tests import process
from tests.engines.conftest import WORKERS, environment
from tests.engines.test_mirrored import (
    assert_alike,
    assert_all_evaluated,
    at_step,
    records,
    variables,
)


def command(recipe, data_dir, model_dir, *more):
    flags = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    return [*flags, *more]


def on_slice(python, cores, *words, status=0, **unset):
    env = environment(**{"TPU_NAME": "stand-in", **unset})
    return process.run(python, WORKERS / "tpu.py", cores, *words, env=env, status=status)


@pytest.fixture(scope="module")
def runs(recipe, data_dir, tmp_path_factory, warm):
    """The same run on the two cores of a slice, and on a CPU as one device."""
    top = tmp_path_factory.mktemp("runs")
    ended = on_slice(warm, 2, *command(recipe, data_dir, top / "slice", "--strategy=tpu"))
    assert "batch 6, shared by 2 devices" in ended.text, str(ended)
    alone = command(recipe, data_dir, top / "alone", "--device=cpu")
    process.cli(*alone, python=warm, env=environment())
    return top / "slice", top / "alone"


def test_the_cores_of_a_slice_train_as_one_device_with_the_whole_batch(runs):
    together, alone = runs
    assert_alike(variables(together / "ckpt-10"), variables(alone / "ckpt-10"))
    for ours, theirs in zip(records(together, "train"), records(alone, "train"), strict=True):
        assert ours["total"] == pytest.approx(theirs["total"], rel=1e-4)
    # No variable of a core is changed between its steps.
    waits = ["data_wait_share" in records(one, "train")[-1] for one in runs]
    assert waits == [False, True]
    (found,), (expected,) = records(together, "eval"), records(alone, "eval")
    assert found["AP"] == pytest.approx(expected["AP"], abs=0.01)
    assert_all_evaluated(together)


def test_cores_agree_on_a_loss_that_is_not_finite_and_on_statistics(warm):
    ended = on_slice(warm, 4, "checks", "norms", "faults")
    assert "norms: content" in ended.stdout and "faults: content" in ended.stdout, str(ended)


@pytest.mark.parametrize("cores", [2, 3])
def test_a_run_goes_on_exactly_and_on_another_number_of_cores(
    runs, recipe, data_dir, tmp_path, warm, cores
):
    run = at_step(5, runs[0], tmp_path / "run")
    # Of the slice of this machine, and of a part of it.
    more = ["--strategy=tpu", *(["--devices=2"] if cores == 2 else [])]
    words = command(recipe, data_dir, run, *more)
    ended = on_slice(warm, 3, *words, TPU_NAME=None)
    assert "at step 5" in ended.text and f"shared by {cores} devices" in ended.text, str(ended)
    found, expected = variables(run / "ckpt-10"), variables(runs[0] / "ckpt-10")
    assert_alike(found, expected, atol=0.0 if cores == 2 else 2e-4)


def test_other_settings_of_the_step_go_with_a_slice(recipe, data_dir, tmp_path, warm):
    lines = [
        "train.steps = 2",
        "train.image_sizes = ((64, 64), (96, 80))",
        "train.accumulate_steps = 2",
    ]
    more = ["--strategy=tpu", *(f"--gin_params={line}" for line in lines)]
    on_slice(warm, 2, *command(recipe, data_dir, tmp_path / "run", *more))
    assert variables(tmp_path / "run" / "ckpt-2")


@pytest.mark.parametrize(
    "more, said",
    [
        (["--devices=5"], "--devices is 5, and the slice (stand-in) has 2 cores"),
        (["--batch_size=5"], "train.batch_size is 5, which 2 devices cannot share evenly"),
        (["--dtype=fp16"], "build_detector.dtype is 'fp16', and TPUs compute in bfloat16"),
        (["--device=gpu"], "--strategy=tpu trains on the cores of a TPU slice, and --device"),
        (["--use_horovod"], "--use_horovod is given, and --strategy=tpu too"),
        (["--device=tpu", "--strategy=mirrored"], "Give --strategy=tpu, which trains on the cores"),
        (["--batch_size=auto"], "measures one device, and 2 share a batch"),
    ],
)
def test_what_a_slice_cannot_do_is_refused(recipe, data_dir, tmp_path, warm, more, said):
    words = command(recipe, data_dir, tmp_path / "run", "--strategy=tpu", *more)
    ended = on_slice(warm, 2, *words, status=1)
    assert said in ended.stderr and "Traceback" not in ended.text, str(ended)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "step, shape, said",
    [
        (lambda batch: tf.strings.as_string(batch["a"]), [2], "AsString.* makes a text"),
        (lambda batch: tf.numpy_function(abs, [batch["a"]], tf.float32), [2], "calls Python"),
        (lambda batch: batch["a"] + 1.0, [None], r"'a' of the batch has the shape \(None,\)"),
        (lambda batch: tf.strings.to_number(batch["b"]), [2], "'b' of the batch is a text"),
        (lambda batch: batch["a"] + 1.0, [2], None),
    ],
)
def test_work_of_the_host_is_refused_in_a_step(step, shape, said):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape)])
    def traced(values):
        batch = {"a": values, **({"b": tf.constant(["1"])} if said and "'b'" in said else {})}
        return run_compiled(lambda function, args: function(*args), step, [batch])

    if said is None:
        assert traced(tf.zeros(2)).numpy().tolist() == [1.0, 1.0]
        return
    with pytest.raises(ValueError, match=said):
        traced(tf.zeros(2))
