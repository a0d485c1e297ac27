"""What to type instead of flags that other tools have, and this library calls otherwise."""

from __future__ import annotations

import re

from absl import flags

_RATE = "--learning_rate"
_NOT_NEEDED = "Not needed"
_CLASSES = f"{_NOT_NEEDED}: the data has the classes; `convert --label_map` chooses them"
_SIZE = "--gin_params='IMAGE_SIZE = (512, 512)', height and width"
_INPUT = "image files or folders after the flags: ssd_centernet predict --model_dir=RUN IMAGES"
_WEIGHTS = "--fine_tune_checkpoint in train, --checkpoint where a run is read"
_DATA = "--data_dir for data of `convert`, or --annotations for what your tool wrote"
_RUN = "--model_dir, the folder of the run"
_SCORE = "--min_score in predict, --gin_params='SSDDecoder.score_threshold = 0.1' elsewhere"
_RECIPE = "--gin_file=RECIPE, such as ssd300_resnet34; docs/recipes.md lists them"
_DEBUGGER = (
    "python -m pdb -c continue -m ssd_centernet COMMAND FLAGS --debug, which stops at an error"
)
_HINTS = {
    "lr": _RATE,
    "lr0": _RATE,
    "initial_learning_rate": _RATE,
    "num_classes": _CLASSES,
    "nc": _CLASSES,
    "classes": _CLASSES,
    "class_names": _CLASSES,
    "names": _CLASSES,
    "image_size": _SIZE,
    "img_size": _SIZE,
    "imgsz": _SIZE,
    "input_size": _SIZE,
    "num_epochs": "--epochs",
    "max_steps": "--num_steps",
    "iterations": "--num_steps",
    "batch": "--batch_size",
    "bs": "--batch_size",
    "weights": _WEIGHTS,
    "pretrained": _WEIGHTS,
    "init_checkpoint": _WEIGHTS,
    "data": _DATA,
    "dataset": _DATA,
    "data_path": _DATA,
    "project": _RUN,
    "work_dir": _RUN,
    "model": _RECIPE,
    "arch": _RECIPE,
    "recipe": _RECIPE,
    "backbone": _RECIPE,
    "optimizer": "--gin_params='train.optimizer = @Adam'",
    "patience": "--gin_params='train.early_stop_patience = 3'",
    "freeze": "--gin_params=\"train.freeze = ('stem_',)\"",
    "resume": "the same command again, which goes on; --resume_from goes on from another run",
    "seeds": "--seed for one run; `ssd_centernet ablate` trains with several and compares",
    "gpu": "--device=gpu",
    "gpus": "`ssd_centernet launch`, one process for each device",
    "images": _INPUT,
    "source": _INPUT,
    "input": _INPUT,
    "conf": _SCORE,
    "threshold": _SCORE,
    "score_threshold": _SCORE,
    "val_split": "--eval_split in train, --split elsewhere",
    "test_split": "--split=test",
    # Of `absl.app`, which starts no command here.
    "pdb": _DEBUGGER,
    "run_with_pdb": _DEBUGGER,
    "pdb_post_mortem": _DEBUGGER,
    "only_check_args": f"{_NOT_NEEDED}: flags and recipe are checked before a run begins",
}


# What a command reads instead of a flag that others have.
_OF_COMMAND = {
    ("report", "model_dir"): "run directories after the command: ssd_centernet report RUN RUN",
    ("report", "page"): "--output=report.html",
    **dict.fromkeys(
        [(command, "gin_file") for command in ("evaluate", "export", "predict")],
        f"{_NOT_NEEDED}: the run of --model_dir has its settings; --gin_params changes one",
    ),
}
# Commands that take a whole line behind `--`.
_BEHIND = {
    "compat": (
        "The line of the other program stands behind `--`: ssd_centernet compat -- ssd.py -e 3"
    ),
    "launch": (
        "The command and its flags stand behind `--`: ssd_centernet launch --num_processes=2 -- "
        "train --gin_file=RECIPE ..."
    ),
}
# How Python says it -> how we do.
_RAW = {
    r"invalid literal for int\(\) with base 10: .*": "expected a whole number",
    r"could not convert string to float: .*": "expected a number",
    r"\('Non-boolean argument to boolean flag', .*\)": "expected true or false",
}


def explain(error: Exception, command: str = "") -> str:
    """Say what is wrong with a command line.

    Args:
        error: of absl's flags, or of ours.
        command: that was called.

    Returns:
        Its message; of an unknown flag what takes its place, where that is known.
    """
    name = getattr(error, "flagname", "").replace("-", "_")
    if command in _BEHIND and isinstance(error, flags.UnrecognizedFlagError):
        return f"Unknown command line flag {error.flagname!r}. {_BEHIND[command]}"
    hint = _OF_COMMAND.get((command, name)) or _HINTS.get(name)
    if hint is None or not isinstance(error, flags.UnrecognizedFlagError):
        text = str(error).strip()
        for raw, ours in _RAW.items():
            text = re.sub(raw, ours, text)
        return text
    told = hint if hint.startswith(_NOT_NEEDED) else f"Give instead: {hint}"
    return f"Unknown command line flag {error.flagname!r}. {told}."
