"""The answer to `PROGRAM --help`: every option of a program of an original, and what it is here."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ssd_centernet.cli._vendor_table import ALIASES, SAME
from ssd_centernet.cli.originals.options import Option, as_flag

ASKED = frozenset(("-h", "-help", "--help", "--helpfull", "--helpshort"))
# What neither `train` knows under this name nor `Option.nothing` or `Option.refused` says.
_MEANINGS = {
    "allow_xla": "Sets TF_XLA_FLAGS=--tf_xla_auto_jit=2.",
    "cfg_options": "KEY=VALUE words for settings of the configuration; a key that is not known is "
    "an error with those that are.",
    "checkpoint_dir": "Evaluate the checkpoints of this folder.",
    "config_override": "A piece of a configuration, which wins over the file.",
    "deterministic": "Sets TF_DETERMINISTIC_OPS=1.",
    "do_train": "True: train; False: evaluate.",
    "eval_count": "How many evaluations there are in the run.",
    "eval_timeout": "Seconds without a new checkpoint after which an evaluation ends.",
    "eval_training_data": "Evaluate the training images.",
    "gpu_ids": "Numbers of the devices, one process for each.",
    "gpus": "Number of devices, one process for each.",
    "hparams_overrides": "load_pretrained=false begins with random weights; nothing else.",
    "launcher": "none, pytorch or mpi; Horovod connects the processes.",
    "load_latest_ckpt_continuously": "Wait for the next checkpoint after each evaluation.",
    "no_hpu": "Run on the first accelerator there is, else on the CPU.",
    "options": "As --cfg-options.",
    "out": "A file in the folder that the results go to.",
    "pipeline_config_path": "The configuration: it is read where it is there; a published name "
    "stands for its settings.",
    "recipe_cache": "Sets TF_RECIPE_CACHE_PATH.",
    "run_once": "Evaluate the latest checkpoint and end.",
    "tpu_name": "Sets TPU_NAME.",
}
_SAME = {row.name for row in SAME}
_ALIASES = {row.name: row.help for row in ALIASES}


def describe(program: str, system: str, options: Sequence[Option]) -> str:
    """List the options of a program with what each becomes.

    Args:
        program: its name.
        system: that it belongs to.
        options: of the program.

    Returns:
        The text, over several lines.
    """
    lines = [
        f"{program} of {system}, behind `ssd_centernet compat --`.",
        "Before the `--`, --dry_run prints the command that a line becomes, and --add=--device=cpu",
        "adds a flag of this library.",
        "",
        "Options:" if options else "It has no options.",
    ]
    for option in sorted(options, key=lambda one: one.name):
        dashed = "-" if option.short else ""
        name = f"{dashed}{option.short}{', ' * bool(dashed)}--{option.name}"
        kind = {bool: "", list: " WORDS..."}.get(option.kind, f"={option.kind.__name__.upper()}")
        text = meaning(option)
        if option.default not in (None, "", False) and not (option.nothing or option.refused):
            text += f" (default: {as_flag('', option.default).lstrip('-=')})"
        lines.append(f"  {name}{kind.replace('STR', 'STRING')}")
        lines.append(textwrap.fill(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines)


def meaning(option: Option) -> str:
    """Say in a sentence what an option of a program of an original is here."""
    if option.nothing:
        return f"Changes nothing: {option.nothing}."
    if option.refused:
        return f"Cannot be taken over: {option.refused}."
    if option.name in _MEANINGS:
        return _MEANINGS[option.name]
    if option.name in _ALIASES:
        return _ALIASES[option.name]
    assert option.name in _SAME, option.name
    return f"As --{option.name} of `ssd_centernet train`."
