"""ssd.py of SSD ResNet-34 for TensorFlow (Gaudi)."""

from __future__ import annotations

import os

from absl import flags

from ssd_centernet.cli.originals.options import Given, Option
from ssd_centernet.cli.originals.plan import Plan, data_dir

RECIPE = "ssd300_resnet34"
_COUNTED = "images are counted in the data, and every one is evaluated"
_LAUNCHED = "the launcher says how many processes there are"
OPTIONS = (
    Option("dtype", str, "d", default="bf16"),
    Option("batch_size", int, "b", default=128),
    Option("epochs", float, "e", default=50.0),
    Option("mode", str, default="train"),
    Option("max_cpus", int, nothing="the input pipeline takes the cores that `taskset` leaves it"),
    Option("num_parallel_calls", int),
    Option("threadpool_size", int),
    Option("hvd_workers", int, nothing=_LAUNCHED),
    Option("num_workers_per_hls", int, nothing=_LAUNCHED),
    Option("kubernetes_run", bool, nothing=_LAUNCHED),
    Option("use_horovod", bool, default=False),
    Option("inference", str),
    Option("no_hpu", bool, default=False),
    Option("distributed_bn", bool, default=False),
    Option(
        "vis_dataloader",
        bool,
        default=False,
        refused="`ssd_centernet show_inputs` draws what the network is fed",
    ),
    Option("profile", str),
    Option("use_cocoeval_cc", bool, nothing="a compiled evaluation is used where there is one"),
    Option("use_fake_data", bool, "f"),
    Option("lr_warmup_epoch", float),
    Option("base_lr", float),
    Option("weight_decay", float),
    Option("k", float),
    Option("model_dir", str, default="/tmp/ssd"),
    Option("resnet_checkpoint", str, default="/data/ssd_r34-mlperf"),
    Option("data_dir", str, default="/data/coco2017/ssd_tf_records"),
    Option("eval_samples", int, nothing=_COUNTED),
    Option("num_examples_per_epoch", int, nothing=_COUNTED),
    Option("steps", int, "s", default=0),
    Option("log_step_count_steps", int, "v", default=1),
    Option("save_checkpoints_epochs", float, "c", default=5.0),
    Option("save_checkpoints_steps", int),
    Option("keep_ckpt_max", int, default=20),
    Option("save_summary_steps", int, default=1),
    Option("static", bool),
    Option("recipe_cache", str),
)
# Defaults of the original that this library's would differ from.
_TOLD = ("dtype", "batch_size", "save_checkpoints_epochs", "keep_ckpt_max")
# Those that training here has under the same name.
_SAME = (
    "num_parallel_calls threadpool_size distributed_bn profile use_fake_data lr_warmup_epoch "
    "base_lr weight_decay k static"
).split()


def translate(given: Given) -> Plan:
    """Turn a command line of ssd.py into a command of this library."""
    mode = given.get("mode")
    if mode not in ("train", "eval"):
        raise flags.Error(f"--mode={mode} of ssd.py: expected train or eval.")
    if "inference" in given:
        plan = _on_a_run("predict", given)
        plan.command.append(given.get("inference"))
    elif mode == "eval":
        plan = _on_a_run("evaluate", given)
        plan.command.append("--every_checkpoint")
        plan.add_data(_records(given), typed="data_dir" in given)
        plan.add_either("batch_size", given.get("batch_size"), typed="batch_size" in given)
        plan.add("use_horovod", given.get("use_horovod") or None)
    else:
        plan = _training(given)
    if "recipe_cache" in given:
        plan.environment["TF_RECIPE_CACHE_PATH"] = given.get("recipe_cache")
    plan.notes += given.notes()
    return plan


def _records(given: Given) -> str:
    asked = given.get("data_dir") if "data_dir" in given else None
    return data_dir(asked, given.get("data_dir"))


def _device(given: Given) -> str:
    return "auto" if given.get("no_hpu") else "hpu"


def _on_a_run(command: str, given: Given) -> Plan:
    """Begin a command that reads a run: what belongs to a training has no effect there."""
    plan = Plan([command])
    plan.add_either("model_dir", given.get("model_dir"), typed="model_dir" in given)
    plan.add("dtype", given.values.get("dtype"))
    plan.add_device(_device(given), typed="no_hpu" in given)
    unused = [f"--{name}" for name in ("resnet_checkpoint", "epochs", "steps") if name in given]
    if unused:
        plan.notes.append(f"{', '.join(unused)}: nothing of a run that is trained already")
    return plan


def _training(given: Given) -> Plan:
    plan = Plan(["train", f"--gin_file={RECIPE}"])
    plan.add_either("mode", "train", typed="mode" in given)
    told = [name for name in _TOLD if name != "save_checkpoints_epochs"]
    if "save_checkpoints_steps" in given:
        plan.add("checkpoint_every", given.get("save_checkpoints_steps"))
    else:
        told.append("save_checkpoints_epochs")
    for name in told:
        plan.add_either(name, given.get(name), typed=name in given)
    if given.get("steps"):
        plan.add("num_steps", given.get("steps"))
    elif "epochs" in given:
        plan.add("epochs", float(int(given.get("epochs"))))  # The original drops a fraction.
    else:
        plan.add_default("epochs", given.get("epochs"))
    intervals = [
        given.values[name]
        for name in ("log_step_count_steps", "save_summary_steps")
        if name in given
    ]
    plan.add_either("log_every", min(intervals, default=1), typed=bool(intervals))
    plan.add_either("model_dir", given.get("model_dir"), typed="model_dir" in given)
    records = _records(given)
    plan.add_data(records, typed="data_dir" in given)
    if _has_tpu_names(records):
        plan.command += ["--train_split=train", "--eval_split=val"]
    weights = given.get("resnet_checkpoint")
    if "resnet_checkpoint" in given or os.path.exists(weights):
        typed = "resnet_checkpoint" in given
        plan.add_either("fine_tune_checkpoint", weights, typed=typed)
        plan.add_either("fine_tune_checkpoint_type", "classification", typed=typed)
    else:
        plan.notes.append(f"{weights}, the original's initial weights, is not here")
        plan.add_default("fine_tune_checkpoint", "")
    plan.command += given.flags_of(*_SAME)
    plan.add("use_horovod", given.get("use_horovod") or None)
    plan.add_device(_device(given), typed="no_hpu" in given)
    return plan


def _has_tpu_names(folder: str) -> bool:
    """Tell records of the original's converter, train-* and val-*, from those of `convert`."""
    from ssd_centernet.data.splits import list_splits

    splits = list_splits(folder)
    return "train" in splits and "coco_train" not in splits
