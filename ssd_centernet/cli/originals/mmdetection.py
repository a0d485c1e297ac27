"""tools/train.py and tools/test.py of SSD VGG-16 (SSD for PyTorch, and MMDetection itself)."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from ssd_centernet.cli.originals.options import Given, Option
from ssd_centernet.cli.originals.plan import Plan

_LAUNCHED = "the launcher in front of the program says how many processes there are"
_COMMON = (
    Option("options", list),
    Option("cfg_options", list),
    Option("launcher", str, default="none"),
    Option("local_rank", int, nothing=_LAUNCHED),
)
TRAIN_OPTIONS = (
    *_COMMON,
    Option("work_dir", str),
    Option("resume_from", str),
    Option("no_validate", bool, default=False),
    Option("gpus", int, default=1),
    Option("gpu_ids", list),
    Option("seed", int),
    Option("deterministic", bool, default=False),
)
TEST_OPTIONS = (
    *_COMMON,
    Option("out", str),
    Option("eval", list, nothing="COCO's numbers of boxes are what is computed"),
    Option("eval_options", list, nothing="COCO's numbers of boxes are what is computed"),
    Option("format_only", bool, nothing="detections.json is in COCO's format"),
    Option("show", bool, default=False, refused="`ssd_centernet predict` draws detections"),
    Option("show_dir", str, refused="`ssd_centernet predict --output_dir=DIR` draws detections"),
    Option("show_score_thr", float, nothing="nothing is drawn"),
    Option("fuse_conv_bn", bool, nothing="SSD VGG-16 has no batch norm"),
    Option("gpu_collect", bool, nothing="results are gathered by Horovod"),
    Option("tmpdir", str, nothing="results are gathered by Horovod"),
    Option("work_dir", str),
)
# The variables that say which devices a process sees.
VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
# An epoch of the original is five passes over the images (RepeatDataset).
_PASSES = 5


def _epochs(name: str) -> Callable[[Plan, Any], None]:
    def add(plan: Plan, value: Any) -> None:
        plan.add(name, f"{_PASSES * value:g} epochs" if name != "epochs" else _PASSES * value)

    return add


def _flag(name: str) -> Callable[[Plan, Any], None]:
    return lambda plan, value: plan.add(name, value)


def _bound(name: str, scale: float = 1) -> Callable[[Plan, Any], None]:
    return lambda plan, value: plan.bind({name: value * scale if scale != 1 else value})


def _passes(name: str) -> Callable[[Plan, Any], None]:
    return lambda plan, value: plan.bind({name: tuple(_PASSES * one for one in value)})


def _weights(plan: Plan, value: Any) -> None:
    plan.add("fine_tune_checkpoint", value)


def _backbone(plan: Plan, value: Any) -> None:
    plan.add("fine_tune_checkpoint", value)
    plan.add("fine_tune_checkpoint_type", "classification")


def _rate(plan: Plan, value: Any) -> None:
    # The original's rate does not follow the batch.
    plan.bind({"StepDecay.base_learning_rate": value, "StepDecay.reference_batch_size": None})


# Key of the configuration -> what takes a value of it over.
_KEYS: dict[str, Callable[[Plan, Any], None]] = {
    "data.samples_per_gpu": _flag("batch_size"),
    "total_epochs": _epochs("epochs"),
    "runner.max_epochs": _epochs("epochs"),
    "log_config.interval": _flag("log_every"),
    "checkpoint_config.interval": _epochs("checkpoint_every"),
    "evaluation.interval": _epochs("evaluate_every"),
    "load_from": _weights,
    "model.pretrained": _backbone,
    "resume_from": _flag("resume_from"),
    "work_dir": _flag("model_dir"),
    "seed": _flag("seed"),
    "optimizer.lr": _rate,
    "optimizer.momentum": _bound("Momentum.momentum"),
    "optimizer.weight_decay": _bound("train.weight_decay"),
    "lr_config.step": _passes("StepDecay.boundaries"),
    "lr_config.warmup_iters": _bound("StepDecay.warmup_steps"),
    "lr_config.warmup_ratio": _bound("StepDecay.warmup_ratio"),
    "model.test_cfg.score_thr": _bound("SSDDecoder.score_threshold"),
    "model.test_cfg.nms.iou_threshold": _bound("SSDDecoder.iou_threshold"),
    "model.test_cfg.max_per_img": _bound("SSDDecoder.max_detections"),
    "test_cfg.score_thr": _bound("SSDDecoder.score_threshold"),
    "test_cfg.nms.iou_threshold": _bound("SSDDecoder.iou_threshold"),
    "test_cfg.max_per_img": _bound("SSDDecoder.max_detections"),
}
_WITHOUT_EFFECT = {
    "data.workers_per_gpu": "the input pipeline takes the cores there are",
    "dist_params.backend": "Horovod connects the processes",
    "cudnn_benchmark": "TensorFlow chooses its kernels",
}
# What an evaluation of a run can take.
_OF_EVALUATIONS = ("data.samples_per_gpu", "test_cfg")


def translate_train(given: Given) -> Plan:
    """Turn a command line of tools/train.py into a command of this library."""
    config = _one(given, 1, "the configuration, such as configs/ssd/ssd300_coco.py")[0]
    name = os.path.splitext(os.path.basename(config))[0]
    plan = Plan(["train", f"--gin_file={_recipe(config)}"])
    plan.notes.append(f"{config} chooses the recipe; its other settings are not read")
    if given.get("no_validate"):
        plan.add("mode", "train")
    options = _config_options(given)
    if "data.samples_per_gpu" not in options:
        plan.add_default("batch_size", 8)
    if "npu" in name:
        plan.add_default("use_amp", True)
    _take_over(plan, options, _KEYS)
    if "work_dir" in given:
        plan.add("model_dir", given.get("work_dir"))
    elif "work_dir" not in options:
        plan.add_default("model_dir", f"work_dirs/{name}")
    plan.add_data(os.environ.get("DATA_DIR") or "data/coco", typed=False)
    plan.command += given.flags_of("resume_from", "seed")
    if given.get("deterministic"):
        plan.environment["TF_DETERMINISTIC_OPS"] = "1"
    device = "npu" if "npu" in name else None
    plan.add_device(device)
    _count_devices(plan, given, device)
    plan.notes += given.notes()
    return plan


def translate_test(given: Given) -> Plan:
    """Turn a command line of tools/test.py into a command of this library."""
    config, checkpoint = _one(given, 2, "the configuration and the checkpoint")
    folder, name = os.path.split(checkpoint)
    plan = Plan(["evaluate", f"--model_dir={folder or '.'}"])
    plan.notes.append(f"{config} is not read: the settings are those that the run saved")
    if name == "latest.pth":
        plan.add("checkpoint", "latest")
    elif name.endswith(".pth"):
        raise flags.Error(
            f"{checkpoint} is a file of PyTorch; expected a run of this library: its folder with "
            "/latest.pth or /ckpt-STEP behind it. Weights of PyTorch begin a run: `ssd_centernet "
            "train --fine_tune_checkpoint=FILE`."
        )
    else:
        plan.add("checkpoint", checkpoint)
    options = _config_options(given)
    known = {key: take for key, take in _KEYS.items() if any(one in key for one in _OF_EVALUATIONS)}
    _take_over(plan, options, known)
    if "out" in given or "work_dir" in given:
        plan.add("output_dir", given.values.get("work_dir") or os.path.dirname(given.get("out")))
    plan.add_device("npu" if "npu" in os.path.basename(config) else None)
    _check_launcher(given)
    plan.notes += given.notes()
    return plan


def _one(given: Given, count: int, what: str) -> Sequence[str]:
    if len(given.positional) != count:
        raise flags.Error(
            f"{given.program} got {len(given.positional)} words that belong to no option "
            f"({' '.join(given.positional) or 'none'}); expected {count}: {what}."
        )
    return given.positional


def _recipe(config: str) -> str:
    found = re.search(r"ssd(300|512)", os.path.basename(config))
    if found is None:
        raise flags.Error(
            f"the configuration {config} is none that there is a recipe for: expected a name with "
            "ssd300 or ssd512, such as configs/ssd/ssd300_coco.py."
        )
    return f"ssd{found[1]}_vgg16"


def _config_options(given: Given) -> dict[str, Any]:
    """Read KEY=VALUE words; values are Python's where they can be."""
    if "options" in given and "cfg_options" in given:
        raise flags.Error("--options and --cfg-options are one thing: give --cfg-options alone.")
    words = given.values.get("cfg_options") or given.values.get("options") or []
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise flags.Error(f"--cfg-options {word}: expected KEY=VALUE.")
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            numbers = text.split(",")
            whole = len(numbers) > 1 and all(re.fullmatch(r"[\d.]+", one) for one in numbers)
            found[key] = tuple(map(ast.literal_eval, numbers)) if whole else text
    return found


def _take_over(
    plan: Plan, options: dict[str, Any], known: dict[str, Callable[[Plan, Any], None]]
) -> None:
    for key, value in options.items():
        if key in _WITHOUT_EFFECT:
            plan.notes.append(f"{key}={value} changes nothing: {_WITHOUT_EFFECT[key]}")
        elif key in known:
            known[key](plan, value)
        else:
            raise flags.Error(
                f"--cfg-options {key}={value} cannot be taken over. Known: "
                f"{', '.join([*known, *_WITHOUT_EFFECT])}. For others: --gin_params of "
                "`ssd_centernet train`."
            )


def _check_launcher(given: Given) -> None:
    launcher = given.get("launcher")
    if launcher not in ("none", "pytorch", "mpi"):
        raise flags.Error(
            f"--launcher={launcher} cannot be taken over: Horovod starts processes by ssh or MPI. "
            "Start `ssd_centernet launch --num_processes=N -- ...` in the job."
        )
    if launcher == "pytorch" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise flags.Error(
            "this is one of several processes that torch.distributed started, and Horovod connects "
            "them here: put the whole line behind `ssd_centernet compat --`."
        )


def _count_devices(plan: Plan, given: Given, device: str | None) -> None:
    """Take --gpus and --gpu-ids over: one process for each device."""
    _check_launcher(given)
    if "gpu_ids" in given and "gpus" in given:
        raise flags.Error("--gpus and --gpu-ids exclude each other.")
    if given.get("launcher") != "none":
        unused = [f"--{name}" for name in ("gpus", "gpu_ids") if name in given]
        plan.notes += [f"{name} changes nothing: {_LAUNCHED}" for name in unused]
    elif "gpu_ids" in given:
        ids = given.get("gpu_ids")
        plan.processes = max(1, len(ids))
        plan.environment[VISIBLE[device or "gpu"]] = ",".join(ids)
    else:
        plan.processes = given.get("gpus")
