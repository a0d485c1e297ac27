"""Programs of SSD320 (model_main.py) and CenterNet ResNet-101-FPN (centernet_train.py)."""

from __future__ import annotations

import os

from absl import flags

from ssd_centernet.cli.originals.options import Given, Option
from ssd_centernet.cli.originals.pipeline import CENTERNET, SSD, Pipeline, read_pipeline
from ssd_centernet.cli.originals.plan import Plan, data_dir, split_of

_SAMPLED = "every image is evaluated"
_PROFILED = "profiles have the original's levels, 2 and 1"
_COMMON = (
    Option("model_dir", str),
    Option("pipeline_config_path", str),
    Option("batch_size", int),
    Option("num_train_steps", int, default=0),
    Option("checkpoint_dir", str),
    Option("do_train", bool),
    Option("use_horovod", bool, default=False),
    Option("use_amp", bool, default=False),
    Option("use_profiler", bool, default=False),
    Option("use_performance", bool, default=False),
    Option("sample_1_of_n_eval_examples", int, nothing=_SAMPLED),
    Option("sample_1_of_n_eval_on_train_examples", int, nothing=_SAMPLED),
)
SSD_OPTIONS = (
    *_COMMON,
    Option("num_steps", int, default=0),
    Option("fine_tune_checkpoint", str, default=""),
    Option("fine_tune_checkpoint_type", str),
    Option("hvd_device", str),
    Option("amp", bool, default=False),
    Option("config_override", str),
    Option("hparams_overrides", str),
    Option("raport_file", str, nothing="--use_performance writes MODEL_DIR/summary/summary.json"),
    Option("eval_count", int, default=1),
    Option("eval_training_data", bool, default=False),
    Option("run_once", bool, default=False),
    Option("allow_xla", bool, default=False),
)
CENTERNET_OPTIONS = (
    *_COMMON,
    Option("mode", str, nothing="the original has no such flag; --do_train says what is done"),
    Option("num_steps_per_iter", int),
    Option("checkpoint_every_n", int, default=1000),
    Option("eval_timeout", int, default=3600),
    Option("load_latest_ckpt_continuously", bool, default=True),
    Option("eval_on_train_data", bool, nothing="the original has no use for it either"),
    Option("finetune_ckpt", str, default=""),
    Option("fine_tune_ckpt", str, default=""),
    Option("use_gpus", bool, default=False),
    Option("use_gpu", bool, default=False),
    Option("host_tracer_level", int, nothing=_PROFILED),
    Option("device_tracer_level", int, nothing=_PROFILED),
    Option("record_summaries", bool, nothing="summaries are written every --log_every"),
    Option("use_tpu", bool, default=False),
    Option("tpu_name", str),
    Option(
        "num_workers",
        int,
        default=1,
        refused="put `horovodrun -np N` or `mpirun -np N` in front of the program instead",
    ),
)
_PIPELINE = "pipeline_config_path"
_EVERY = "checkpoint_every_n"
# What only the port has: without --do_train it evaluates, where NVIDIA's program trains.
_OF_THE_PORT = ("batch_size", "num_steps", "use_horovod", "use_amp", "hvd_device")


def translate_ssd(given: Given) -> Plan:
    """Turn a command line of model_main.py into a command of this library."""
    _require(given)
    pipeline = _pipeline(given, SSD)
    evaluates = given.get("do_train") is False
    evaluates |= given.get("do_train") is None and any(name in given for name in _OF_THE_PORT)
    if "checkpoint_dir" in given or evaluates:
        plan = _evaluation(given)
        if given.get("eval_training_data"):
            plan.add("split", split_of(pipeline.train_records, "train") or "coco_train")
        if "checkpoint_dir" in given and not given.get("run_once"):
            plan.command.append("--wait")
        plan.notes += given.notes()
        return plan
    steps = given.get("num_steps") or given.get("num_train_steps") or pipeline.num_steps
    plan = Plan(["train", f"--gin_file={SSD}"])
    if given.get("eval_count") > 1:
        plan.add("evaluate_every", max(1, steps // given.get("eval_count")))
    else:
        plan.add_either("mode", "train_and_post_eval", typed="eval_count" in given)
    batch_size = given.get("batch_size") or pipeline.batch_size
    plan.add_either("batch_size", batch_size, typed=_is_typed(given, "batch_size"))
    _common_training(plan, given, pipeline, steps)
    _initial_weights(plan, given, pipeline)
    plan.command += given.flags_of("amp")
    plan.add_device(given.get("hvd_device"), typed="hvd_device" in given)
    if given.get("allow_xla"):
        plan.environment["TF_XLA_FLAGS"] = "--tf_xla_auto_jit=2"
    plan.notes += [*pipeline.notes, *given.notes()]
    return plan


def translate_centernet(given: Given) -> Plan:
    """Turn a command line of centernet_train.py into a command of this library."""
    _require(given)
    device = "gpu" if given.get("use_gpus") or given.get("use_gpu") else "mlu"
    chosen = device == "gpu"
    if "checkpoint_dir" in given and not given.get("do_train"):
        plan = _evaluation(given)
        if given.get("load_latest_ckpt_continuously"):
            plan.command.append("--wait")
            plan.add("timeout", given.get("eval_timeout"))
        plan.add_default("batch_size", 1)
        plan.add_device(device, typed=chosen)
        plan.notes += given.notes()
        return plan
    pipeline = _pipeline(given, CENTERNET)
    plan = Plan(["train", f"--gin_file={CENTERNET}"])
    plan.add_either("mode", "train", typed="mode" in given)
    batch_size = given.get("batch_size") or pipeline.batch_size
    plan.add_either("batch_size", batch_size, typed=_is_typed(given, "batch_size"))
    steps = given.get("num_train_steps") or pipeline.num_steps
    if steps == 140000:  # What the recipe's boundaries are for.
        pipeline.parameters.pop("StepDecay.length", None)
    _common_training(plan, given, pipeline, steps)
    for flag, name in (("log_every", "num_steps_per_iter"), ("checkpoint_every", _EVERY)):
        plan.add_either(flag, given.get(name), typed=name in given)
    plan.bind({"train.keep_checkpoints": 7})
    plan.defaults.append(plan.command[-1])
    checkpoint = given.get("finetune_ckpt") or given.get("fine_tune_ckpt")
    checkpoint = "" if checkpoint == "None" else checkpoint  # As the readme writes the default.
    if checkpoint and _is_ours(checkpoint):
        plan.add("resume_from", checkpoint)
    elif checkpoint:
        plan.add("fine_tune_checkpoint", checkpoint)
        plan.notes.append(f"of {checkpoint} the weights are taken, not its step and optimizer")
    elif pipeline.checkpoint:
        _initial_weights(plan, None, pipeline)
    if given.get("use_tpu"):
        device, chosen = "tpu", True
        plan.environment |= {"TPU_NAME": given.get("tpu_name")} if "tpu_name" in given else {}
    plan.add_device(device, typed=chosen)
    plan.notes += [*pipeline.notes, *given.notes()]
    return plan


def _require(given: Given) -> None:
    if "model_dir" not in given:
        raise flags.Error(f"{given.program} needs --model_dir, the folder of the run.")


def _pipeline(given: Given, recipe: str) -> Pipeline:
    path = given.get("pipeline_config_path")
    if path is None:
        raise flags.Error(
            f"{given.program} needs --pipeline_config_path, such as "
            f"{'models/configs/ssd320_full_1mlus.config' if recipe == SSD else ''}"
            f"{'models/mlu_centernet_config.config' if recipe == CENTERNET else ''}."
        )
    override = given.get("config_override") if recipe == SSD else None
    found = read_pipeline(path, override)
    if found.recipe != recipe:
        raise flags.Error(f"{given.program}: {path} describes {found.recipe}, expected {recipe}.")
    return found


def _evaluation(given: Given) -> Plan:
    """Begin an evaluation: of the folder of checkpoints, into that of the run."""
    folder = given.get("checkpoint_dir") or given.get("model_dir")
    plan = Plan(["evaluate", f"--model_dir={folder}"])
    if os.path.abspath(folder) != os.path.abspath(given.get("model_dir")):
        plan.add("output_dir", os.path.join(given.get("model_dir"), "evaluation"))
    continuous = given.values.get("load_latest_ckpt_continuously")
    once = "checkpoint_dir" not in given or given.values.get("run_once") or continuous is False
    if once:
        plan.add("checkpoint", "latest")
    plan.notes.append("the settings are those that the run saved")
    return plan


def _common_training(plan: Plan, given: Given, pipeline: Pipeline, steps: int) -> None:
    """Add what both programs have: length, places, precision, measurements, settings."""
    plan.add_either("num_steps", steps, typed=_is_typed(given, "num_steps", "num_train_steps"))
    plan.add("model_dir", given.get("model_dir"))
    folder = os.path.dirname(pipeline.train_records or "") or None
    records = data_dir(folder, "data/coco2017_tfrecords/tfrecords")
    plan.add_data(records, typed=records == folder)
    if records == folder:
        plan.add("train_split", split_of(pipeline.train_records, "train"))
        plan.add("eval_split", split_of(pipeline.eval_records, "val"))
    plan.command += given.flags_of("use_amp", "use_performance", "use_profiler")
    plan.add("use_horovod", given.get("use_horovod") or None)
    plan.bind(pipeline.parameters)


def _initial_weights(plan: Plan, given: Given | None, pipeline: Pipeline) -> None:
    """Add the weights that a run begins with: those given, else those of the configuration."""
    path, kind = None, None
    if given is not None:
        if given.get("hparams_overrides"):
            if given.get("hparams_overrides").replace(" ", "") != "load_pretrained=false":
                raise flags.Error(
                    f"--hparams_overrides={given.get('hparams_overrides')} cannot be taken over: "
                    "expected load_pretrained=false. For others: --config_override."
                )
            plan.notes.append("load_pretrained=false: random weights")
            return
        path, kind = given.get("fine_tune_checkpoint"), given.get("fine_tune_checkpoint_type")
    if not path:
        path, kind = pipeline.checkpoint or "", pipeline.checkpoint_type
        if path and not os.path.exists(f"{path}.index") and not os.path.exists(path):
            plan.notes.append(f"{path}, the configuration's initial weights, is not here")
            path = ""
    plan.add_either(
        "fine_tune_checkpoint",
        path,
        typed=bool(path) or (given is not None and "fine_tune_checkpoint" in given),
    )
    plan.add("fine_tune_checkpoint_type", kind or ("classification" if path else None))


def _is_typed(given: Given, *names: str) -> bool:
    """Tell whether an option gives a setting, or a file of the user's own that is here."""
    return any(name in given for name in names) or os.path.exists(given.get(_PIPELINE))


def _is_ours(checkpoint: str) -> bool:
    """Tell a run of this library, or a checkpoint in one, from a checkpoint of others."""
    from ssd_centernet.run_directory import CONFIG_NAME

    folders = (checkpoint, os.path.dirname(checkpoint))
    return any(os.path.exists(os.path.join(folder, CONFIG_NAME)) for folder in folders)
