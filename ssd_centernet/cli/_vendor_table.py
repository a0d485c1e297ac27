"""The flags of the four published systems: what each means here, or what replaces it.

One row per flag. `_vendor_flags` defines the accepted ones from these rows, and docs/flags.md lists
all of them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Letters of the rows -> system.
SYSTEMS = {
    "R": "SSD ResNet-34 (Gaudi)",
    "F": "SSD320 ResNet-50-FPN (GPU, MLU)",
    "V": "SSD VGG-16 (NPU)",
    "C": "CenterNet ResNet-101-FPN (MLU)",
    "H": "CenterNet Hourglass-104 (Model Garden)",
}


class _Given:
    """Stand for the value of the flag itself."""

    def __repr__(self) -> str:
        return "the value"


GIVEN = _Given()


class Same(NamedTuple):
    """A flag that has its name and meaning here too; `short` is its one-letter form."""

    name: str
    systems: str
    short: str = ""


class Alias(NamedTuple):
    """A flag that is accepted and sets something else of this library.

    Attributes:
        name: without dashes.
        systems: letters of `SYSTEMS`.
        kind: bool, int, float or str.
        sets: name -> value. The name is that of a flag, of a gin parameter (with a dot), or
            `schedule.X` and `batches.X` for a parameter of what the recipe binds to
            `train.schedule` and `train.batches`. The value is `GIVEN`, a text in which {} is filled
            in, or a constant that a bool flag sets when it is true.
        help: what it means.
        short: one-letter form.
        off: what a bool flag sets when it is false; nothing by default.
        unset: the value that means "not given".
        weak: whether a flag of this library beside it wins instead of being a contradiction.
    """

    name: str
    systems: str
    kind: type
    sets: Mapping[str, Any]
    help: str
    short: str = ""
    off: Mapping[str, Any] = {}
    unset: Any = None
    weak: bool = False


class Replaced(NamedTuple):
    """A flag that is not accepted; `by` says what to use instead, or why nothing is needed."""

    name: str
    systems: str
    by: str


SAME = (
    Same("batch_size", "RFVC", "b"),
    Same("data_dir", "R"),
    Same("distributed_bn", "R"),
    Same("dtype", "R", "d"),
    Same("epochs", "R", "e"),
    Same("fine_tune_checkpoint", "F"),
    Same("fine_tune_checkpoint_type", "F"),
    Same("gin_file", "H"),
    Same("gin_params", "H"),
    Same("mode", "RH"),
    Same("model_dir", "RFCH"),
    Same("num_steps", "F"),
    Same("profile", "R"),
    Same("resume_from", "V"),
    Same("seed", "V"),
    Same("static", "R"),
    Same("use_fake_data", "R", "f"),
    Same("use_horovod", "RFC"),
    Same("use_performance", "FC"),
    Same("inference", "R"),
)

_LOG = {"log_every": "{}"}
_FP16 = {"dtype": "fp16"}

ALIASES = (
    Alias("steps", "R", int, {"num_steps": GIVEN}, "Length in steps; 0: --epochs.", "s", {}, 0),
    Alias(
        "num_train_steps",
        "FC",
        int,
        {"num_steps": GIVEN},
        "Length in steps; 0: as the recipe.",
        unset=0,
    ),
    Alias(
        "train_epochs",
        "V",
        float,
        {"epochs": "5 * {}"},
        "Length in the original's epochs of five passes each.",
    ),
    Alias("work_dir", "V", str, {"model_dir": GIVEN}, "Folder of the run."),
    Alias("data_path", "V", str, {"data_dir": GIVEN}, "Folder of the data, converted to records."),
    Alias("use_amp", "FC", bool, _FP16, "Mixed precision in float16 with a loss scale."),
    Alias("amp", "F", bool, _FP16, "Mixed precision in float16 with a loss scale."),
    Alias(
        "do_train",
        "FC",
        bool,
        {"mode": "train"},
        "True: train without evaluations; False: evaluate the run of --model_dir.",
        off={"mode": "eval"},
    ),
    Alias("no_validate", "V", bool, {"mode": "train"}, "Train without evaluations."),
    Alias(
        "checkpoint_dir",
        "FC",
        str,
        {"mode": "eval"},
        "Evaluate the latest checkpoint of this folder.",
    ),
    Alias("hvd_device", "F", str, {"device": GIVEN}, "Device to run on: mlu or gpu."),
    Alias(
        "use_gpus", "C", bool, {"device": "gpu"}, "Run on a GPU; False leaves --device as it is."
    ),
    Alias("use_gpu", "C", bool, {"device": "gpu"}, "As --use_gpus."),
    Alias("use_tpu", "C", bool, {"device": "tpu"}, "Run on a TPU; False leaves --device as it is."),
    Alias(
        "finetune_ckpt",
        "C",
        str,
        {"resume_from": GIVEN},
        "Checkpoint to continue, with its step and optimizer.",
        unset="",
    ),
    Alias("fine_tune_ckpt", "C", str, {"resume_from": GIVEN}, "As --finetune_ckpt.", unset=""),
    Alias(
        "resnet_checkpoint",
        "R",
        str,
        {"fine_tune_checkpoint": GIVEN, "fine_tune_checkpoint_type": "classification"},
        "Weights that the backbone of a new run begins with.",
        unset="",
    ),
    Alias(
        "use_profiler",
        "FC",
        bool,
        {"profile": "10,14"},
        "Trace some steps after the warm-up for TensorBoard; --profile chooses others.",
        weak=True,
    ),
    Alias("log_step_count_steps", "R", int, _LOG, "Interval of log lines and summaries.", "v"),
    Alias("save_summary_steps", "R", int, _LOG, "Interval of log lines and summaries."),
    Alias("num_steps_per_iter", "C", int, _LOG, "Interval of log lines and summaries."),
    Alias(
        "save_checkpoints_epochs",
        "R",
        float,
        {"checkpoint_every": "{} epochs"},
        "Interval of checkpoints in epochs.",
        "c",
    ),
    Alias(
        "save_checkpoints_steps", "R", int, {"checkpoint_every": "{}"}, "Interval of checkpoints."
    ),
    Alias("checkpoint_every_n", "C", int, {"checkpoint_every": "{}"}, "Interval of checkpoints."),
    Alias(
        "keep_ckpt_max",
        "R",
        int,
        {"train.keep_checkpoints": GIVEN},
        "How many checkpoints are kept.",
    ),
    Alias(
        "base_lr",
        "R",
        float,
        {"schedule.base_learning_rate": GIVEN},
        "Learning rate of the recipe's schedule, for its reference batch.",
    ),
    Alias(
        "lr_warmup_epoch",
        "R",
        float,
        {"schedule.warmup_epochs": GIVEN},
        "Warm-up in epochs.",
    ),
    Alias(
        "k",
        "R",
        float,
        {"schedule.stretch": GIVEN},
        "Make plateau and decay of the rate 1 + k/10 times as long.",
    ),
    Alias(
        "weight_decay",
        "R",
        float,
        {"train.weight_decay": GIVEN},
        "Factor of the L2 objective.",
    ),
    Alias(
        "num_parallel_calls",
        "R",
        int,
        {"batches.num_parallel_calls": GIVEN},
        "Images decoded at the same time.",
    ),
    Alias(
        "threadpool_size",
        "R",
        int,
        {"batches.threadpool_size": GIVEN},
        "Threads of the input pipeline, 0 for one per core.",
    ),
)

# What `Replaced.by` begins with where nothing takes a flag's place.
NOTHING = "nothing: "
_RECIPE = (
    "--gin_file=RECIPE, and --gin_params for settings of it; or the whole line behind "
    "`ssd_centernet compat --`, which reads it"
)
_OVERRIDE = (
    "--gin_params='train.batch_size = 8', repeatable; or the whole line behind `ssd_centernet "
    "compat --`, which knows some of their keys"
)
_LAUNCHER = (
    "`ssd_centernet launch`, which starts the processes, on several machines too; or the whole "
    "line behind `ssd_centernet compat --`"
)
_COUNTED = "nothing: images are counted in the data, and every one is evaluated"
_ONCE = "`ssd_centernet evaluate --checkpoint=latest`"
_WAIT = "`ssd_centernet evaluate --wait`, with --timeout"
_VISIBLE = "the environment: CUDA_VISIBLE_DEVICES, or the vendor's variable like it"

# Values of --mode that a program of the Model Garden has and `train` has not.
MODES = {
    "continuous_eval": _WAIT,
    "continuous_train_and_eval": "--mode=train_and_eval",
    "train_and_validate": "--mode=train_and_eval",
}

REPLACED = (
    Replaced("pipeline_config_path", "FC", _RECIPE),
    Replaced("config", "V", _RECIPE),
    Replaced("config_file", "H", _RECIPE),
    Replaced("experiment", "H", "--gin_file=centernet_hourglass104"),
    Replaced("config_override", "F", _OVERRIDE),
    Replaced("hparams_overrides", "F", _OVERRIDE),
    Replaced("options", "V", _OVERRIDE),
    Replaced("cfg_options", "V", _OVERRIDE),
    Replaced("params_override", "H", _OVERRIDE),
    Replaced("no_hpu", "R", "--device=gpu or --device=cpu"),
    Replaced("tpu", "H", "--device=tpu and TPU_NAME in the environment"),
    Replaced("tpu_name", "C", "--device=tpu and TPU_NAME in the environment"),
    Replaced("num_workers", "C", _LAUNCHER),
    Replaced("hvd_workers", "R", _LAUNCHER),
    Replaced("num_workers_per_hls", "R", _LAUNCHER),
    Replaced("kubernetes_run", "R", _LAUNCHER),
    Replaced("gpus", "V", _LAUNCHER),
    Replaced("launcher", "V", _LAUNCHER),
    Replaced("local_rank", "V", _LAUNCHER),
    Replaced("nnodes", "V", _LAUNCHER),
    Replaced("node_rank", "V", _LAUNCHER),
    Replaced("local_addr", "V", _LAUNCHER),
    Replaced("master_addr", "V", _LAUNCHER),
    Replaced("master_port", "V", _LAUNCHER),
    Replaced("gpu_ids", "V", _VISIBLE),
    Replaced("device_id", "V", _VISIBLE),
    Replaced("deterministic", "V", "`--gin_params='train.deterministic = True'`"),
    Replaced("allow_xla", "F", "TF_XLA_FLAGS=--tf_xla_auto_jit=2 in the environment"),
    Replaced("max_cpus", "R", "`taskset` in front of the command"),
    Replaced("recipe_cache", "R", "the environment variables of Gaudi's software"),
    Replaced("vis_dataloader", "R", "`ssd_centernet show_inputs`"),
    Replaced("use_cocoeval_cc", "R", "nothing: a compiled evaluation is used where there is one"),
    Replaced("eval_samples", "R", _COUNTED),
    Replaced("num_examples_per_epoch", "R", _COUNTED),
    Replaced("sample_1_of_n_eval_examples", "FC", _COUNTED),
    Replaced("sample_1_of_n_eval_on_train_examples", "FC", _COUNTED),
    Replaced("eval_count", "F", "--evaluate_every"),
    Replaced("eval_training_data", "F", "`ssd_centernet evaluate --split=train`"),
    Replaced("eval_on_train_data", "C", "`ssd_centernet evaluate --split=train`"),
    Replaced("run_once", "F", _ONCE),
    Replaced("eval_timeout", "C", _WAIT),
    Replaced("load_latest_ckpt_continuously", "C", _WAIT),
    Replaced("raport_file", "F", "--use_performance: MODEL_DIR/summary/summary.json"),
    Replaced("record_summaries", "C", "nothing: summaries are written every --log_every"),
    Replaced("host_tracer_level", "C", "nothing: profiles have the original's levels, 2 and 1"),
    Replaced("device_tracer_level", "C", "nothing: profiles have the original's levels, 2 and 1"),
    Replaced("tf_data_service", "H", "nothing: every process reads its share of the records"),
    Replaced("tpu_platform", "H", "nothing: no platform but TensorFlow's own is supported"),
    Replaced("tfhub_handle", "H", "--fine_tune_checkpoint"),
    Replaced("tflex_output_uri", "H", "--model_dir"),
)
