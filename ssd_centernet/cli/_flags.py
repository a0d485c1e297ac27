"""Flags that several commands share.

Each function defines one group; a command calls those it needs in its `define_flags`. Every
default is None, "not given", so that a flag which nobody typed never overrides a recipe.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

_DTYPES = ["fp32", "bf16", "fp16"]
AUTO = "auto"
_STRATEGIES = ["auto", "one", "mirrored", "multi_worker", "horovod", "hccl", "tpu"]
_DEVICES = ["auto", "cpu", "gpu", "tpu", "hpu", "mlu", "npu"]


def define_gin() -> None:
    """Define --gin_file, --gin_params and --allow_import."""
    flags.DEFINE_multi_string(
        "gin_file",
        None,
        "Recipe: the path of a gin file, or the name of an installed one such as ssd300_resnet34. "
        "Repeatable; later files win.",
    )
    flags.DEFINE_multi_string(
        "gin_params",
        None,
        'A setting that wins over the files, such as "train.batch_size = 8". Repeatable.',
    )
    define_allow_import()


def define_allow_import() -> None:
    """Define --allow_import."""
    flags.DEFINE_list(
        "allow_import",
        None,
        "Modules that the settings of a run (its config.gin) may import and name, such as "
        "my_parts,my_schedule. Without it they name parts of the library alone: they are data.",
    )


def define_model_dir(help_text: str | None = None) -> None:
    """Define --model_dir.

    Args:
        help_text: what the command does with it, when it does not write checkpoints there.
    """
    flags.DEFINE_string(
        "model_dir", None, help_text or "Folder of the run: checkpoints, logs, saved settings."
    )


class _Folders(flags.Flag):
    """A flag that is one text as a rule, and a list where it is given several times."""

    def parse(self, argument) -> None:
        before = self.value if self.present else None
        self.value = argument
        if before is not None:
            self.value = [*([before] if isinstance(before, str) else before), argument]
        self.present += 1


def define_data_dirs() -> None:
    """Define a --data_dir that may be given several times, and --data_weights."""
    flags.DEFINE_flag(
        _Folders(
            flags.ArgumentParser(),
            flags.ArgumentSerializer(),
            "data_dir",
            None,
            "Folder of converted data (*.record-* files and the label map). Given several times, "
            "the data sets are mixed: classes of one name are one class, and the first folder is "
            "evaluated on.",
        )
    )
    flags.DEFINE_list(
        "data_weights",
        None,
        "Share of each --data_dir in an epoch, such as 2,1 (default: every image once).",
    )


def define_data_dir() -> None:
    """Define --data_dir."""
    flags.DEFINE_string(
        "data_dir", None, "Folder of converted data (*.record-* files and the label map)."
    )


def define_train_split() -> None:
    """Define --train_split."""
    flags.DEFINE_string(
        "train_split",
        None,
        "Prefix of the names of the training files, such as train for those of the TPU tools; one "
        "for each --data_dir, with commas, where they differ (default: the recipe's, else "
        "the split train).",
    )


def define_eval_split() -> None:
    """Define --eval_split."""
    flags.DEFINE_string(
        "eval_split",
        None,
        "Prefix of the names of the evaluation files, such as val (default: the recipe's, else "
        "the split val of the data set that is trained on).",
    )


def complete_splits(*names: str) -> None:
    """Complete the names of splits that flags give: `test` is coco_test where only that is there.

    Args:
        names: flags that hold a split, or several with commas between them.
    """
    from ssd_centernet.data.splits import list_splits

    folders = flags.FLAGS.data_dir or []
    known = {
        split
        for folder in ([folders] if isinstance(folders, str) else folders)
        for split in list_splits(folder)
    }
    for name in names:
        given = (flags.FLAGS[name].value or "").split(",")
        full = [
            f"coco_{one}" if one not in known and f"coco_{one}" in known else one for one in given
        ]
        if full != given:
            flags.FLAGS[name].value = ",".join(full)


class _BatchSize(flags.IntegerParser):
    """A number of images, or 'auto' where a command can find the largest."""

    def __init__(self, auto: bool):
        super().__init__(lower_bound=1)
        self._auto = auto

    def parse(self, argument: Any) -> int | str:
        """Read the flag."""
        if str(argument).strip().lower() != AUTO:
            try:
                return super().parse(argument)
            except (TypeError, ValueError) as error:
                more = " or auto" if self._auto else ""
                raise ValueError(f"expected a whole number of 1 or more{more}") from error
        if not self._auto:
            raise ValueError(
                "only train finds the largest batch that fits; here the size changes the speed "
                "alone, and the largest is not the fastest: give a number, or leave it out"
            )
        return AUTO

    def flag_type(self) -> str:
        """Return what the help calls it."""
        return "integer or auto" if self._auto else super().flag_type()


def define_batch_size(*, auto: bool = False) -> None:
    """Define --batch_size.

    Args:
        auto: whether the command takes 'auto'.
    """
    more = ", or auto: the largest that fits into memory, which a run keeps" if auto else ""
    flags.DEFINE(
        _BatchSize(auto),
        "batch_size",
        None,
        f"Images per batch of one process{more}.",
        serializer=flags.ArgumentSerializer(),
    )


def define_use_horovod() -> None:
    """Define --use_horovod."""
    flags.DEFINE_boolean(
        "use_horovod",
        None,
        "This process is one of several that `ssd_centernet launch` or horovodrun started.",
    )


def define_data_service() -> None:
    """Define --data_service: who makes the training batches."""
    flags.DEFINE_list(
        "data_service",
        None,
        "Addresses of workers, such as grpc://10.0.0.5:5050, with commas between: "
        "`ssd_centernet data_worker` makes the batches there, the same ones as without it.",
    )


def refuse_no_worker() -> None:
    """Refuse an empty --data_service, as of a variable that is not set."""
    if flags.FLAGS.data_service == []:
        raise flags.IllegalFlagValueError(
            "--data_service= is empty; expected the addresses of workers, such as "
            "grpc://10.0.0.5:5050. To make the batches in this process, leave the flag out."
        )


def define_strategy() -> None:
    """Define --strategy and --devices."""
    flags.DEFINE_enum(
        "strategy",
        None,
        _STRATEGIES,
        "What joins several devices: one, none; mirrored, the devices of this process, which share "
        "its batch; horovod, processes that a launcher started; multi_worker, those of TF_CONFIG "
        "or mpirun or srun, which TensorFlow joins; hccl, those of RANK_SIZE, on NPUs; tpu, the "
        "cores of a TPU slice. auto: horovod or multi_worker where such started this process, "
        "mirrored where --devices is more than 1, else one.",
    )
    flags.DEFINE_integer(
        "devices",
        None,
        "Devices of this process, which share its batch (--strategy=mirrored or tpu: all).",
        lower_bound=1,
    )


def define_seed() -> None:
    """Define --seed."""
    flags.DEFINE_integer("seed", None, "Seed of weights, shuffling and augmentation.")


def define_dtype() -> None:
    """Define --dtype."""
    flags.DEFINE_enum(
        "dtype", None, _DTYPES, "Precision of the network; losses and decoding stay in fp32."
    )


def define_device() -> None:
    """Define --device."""
    flags.DEFINE_enum(
        "device",
        None,
        _DEVICES,
        "Device to run on (default: auto, an accelerator if there is one).",
    )


def check_finite(flag: str, value: float) -> None:
    """Refuse a number that gin cannot write; `flag` is as it was given.

    Raises:
        flags.IllegalFlagValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise flags.IllegalFlagValueError(f"{flag}: expected a finite number.")


def refuse_nan() -> None:
    """Refuse `nan` for any flag: the bounds of a flag let it pass, and no comparison holds for it.

    Raises:
        flags.IllegalFlagValueError: names the first flag that has it.
    """
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        values = flag.value if isinstance(flag.value, list) else [flag.value]
        if flag.present and any(isinstance(one, float) and math.isnan(one) for one in values):
            raise flags.IllegalFlagValueError(f"--{name}=nan: expected a number.")


def require(*names: str, example: str = "") -> None:
    """Refuse a command line on which a flag is missing.

    Args:
        names: flags that the command cannot do without.
        example: what else helps whoever left one out.

    Raises:
        flags.IllegalFlagValueError: names every flag that was not given.
    """
    # A shell's variable that is not set gives an empty word.
    missing = [f"--{name}" for name in names if flags.FLAGS[name].value in (None, [], "", [""])]
    if missing:
        text = f"{', '.join(missing)} must be given. {example}"
        raise flags.IllegalFlagValueError(text.strip())


def check_png(name: str) -> None:
    """Refuse a picture to write that is not called PNG, as it will be one.

    Args:
        name: flag that names it, which may be missing.

    Raises:
        flags.IllegalFlagValueError: it ends otherwise.
    """
    path = flags.FLAGS[name].value
    if path and not str(path).lower().endswith(".png"):
        raise flags.IllegalFlagValueError(
            f"--{name}={path}: expected the name of a PNG file, which ends with .png."
        )


def check_folders(*names: str) -> None:
    """Refuse a folder to write to that cannot be one, before any work.

    Args:
        names: flags that name one.

    Raises:
        flags.IllegalFlagValueError: it is a file, or lies in one.
    """
    for name in names:
        path = Path(flags.FLAGS[name].value or ".")
        file = next((one for one in (path, *path.parents) if one.is_file()), None)
        if file is not None:
            raise flags.IllegalFlagValueError(
                f"--{name}={path}: {file} is a file, expected a folder."
            )


def check_output(name: str, within: str) -> None:
    """Refuse a run that has a file where results are to go, before any work.

    Args:
        name: flag that names another place; `check_folders` has looked at it.
        within: folder in the run's directory that is taken otherwise.

    Raises:
        NotADirectoryError: it is a file.
    """
    values = flags.FLAGS
    path = Path(values.model_dir or ".") / within
    if values.model_dir and not values[name].value and path.is_file():
        raise NotADirectoryError(
            f"{path} is a file, expected a folder for the results. Move it away, or give --{name}."
        )


def flag_bindings(names: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Turn flags that were given into gin bindings, for `config.parse(flag_params=...)`.

    A flag that goes through gin shows in the saved settings, and is an error when nothing uses it.

    Args:
        names: flag -> the parameter it sets, or several, such as
            {'batch_size': ['train.batch_size', 'evaluate.batch_size']}.

    Returns:
        Bindings such as 'train.batch_size = 8'; nothing for a flag that was not given.

    Raises:
        flags.IllegalFlagValueError: a number that is not finite.
    """
    bindings = []
    for flag, parameters in names.items():
        value: Any = flags.FLAGS[flag].value
        if value is None:
            continue
        if isinstance(value, float):
            check_finite(f"--{flag}={value:g}", value)
        parameters = [parameters] if isinstance(parameters, str) else parameters
        bindings += [f"{parameter} = {value!r}" for parameter in parameters]
    return bindings
