"""What the commands share that read a trained run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ssd_centernet.cli import _flags
from ssd_centernet.runtime.cluster import launched_rank

if TYPE_CHECKING:
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.opened import OpenedRun
    from ssd_centernet.runtime.distribution import Communicator


def define_run_flags() -> None:
    """Define the flags that say which run, which weights of it, and where to run them."""
    # Help lists flags by module; these belong to the shared ones.
    _flags.define_model_dir("Folder of the run to read: its settings, classes and checkpoints.")
    flags.DEFINE_string(
        "checkpoint",
        None,
        "best, latest, a name such as ckpt-500, or a path (default: the best of the run, or the "
        "latest if no best one was kept).",
        module_name=_flags.__name__,
    )
    flags.DEFINE_enum(
        "weights",
        None,
        ["ema", "raw"],
        "ema takes the average of the weights where the run has one (train.ema_decay), raw the "
        "weights that were trained (default: ema).",
        module_name=_flags.__name__,
    )
    flags.DEFINE_multi_string(
        "gin_params",
        None,
        "A setting that wins over those saved with the run, such as "
        '"SSDDecoder.score_threshold = 0.01". Repeatable.',
        module_name=_flags.__name__,
    )
    _flags.define_allow_import()
    _flags.define_batch_size()
    _flags.define_dtype()
    _flags.define_device()


def define_model() -> None:
    """Define the flag that names an exported file instead of a run."""
    flags.DEFINE_string(
        "model",
        None,
        "A file of `ssd_centernet export` instead of --model_dir: model.tflite, model.onnx, "
        "model.xml or the folder saved_model, with model_card.json beside it.",
        module_name=_flags.__name__,
    )


def refuse_with_model(*more: str) -> None:
    """Refuse flags that have no effect on an exported file.

    Args:
        *more: names of flags of the command, beside those of all runs.

    Raises:
        flags.Error: names those that were given.
    """
    values = flags.FLAGS
    names = ("model_dir", "checkpoint", "weights", "gin_params", "allow_import")
    names += ("dtype", "device", *more)
    given = [f"--{name}" for name in names if values[name].present]
    if given:
        raise flags.Error(
            f"{', '.join(given)} cannot be used with --model: an exported file is run as it is. "
            "Leave them out, or leave out --model."
        )


def open_run_of_flags(
    *, checkpoint: str | None, allow: Sequence[str] = (), communicator: Communicator | None = None
) -> OpenedRun:
    """Open the run that --model_dir names, with the overrides of the command line.

    Args:
        checkpoint: which weights, as in `choose_checkpoint`.
        allow: names whose overrides may be without effect.
        communicator: connects the processes that open the run together.

    Returns:
        The run.
    """
    from ssd_centernet.runs.opened import open_run

    values = flags.FLAGS
    return open_run(
        values.model_dir,
        checkpoint=checkpoint,
        gin_params=values.gin_params,
        flag_params=_flags.flag_bindings({"dtype": "build_detector.dtype"}),
        device=values.device or "auto",
        communicator=communicator,
        allow=allow,
        allow_import=values.allow_import,
        # `train --mode=eval` has no such flag.
        trained="weights" in values and values.weights == "raw",
    )


def data_dir_of_flags(*, say: bool = True) -> str:
    """Return --data_dir, or the data that the run of --model_dir was trained on.

    Args:
        say: whether data that was not given is told.

    Raises:
        FileNotFoundError: it is not given, and there is no run.
        flags.IllegalFlagValueError: it is not given, and the run knows none that is still there; or
            it is COCO as it is downloaded, and the run was trained on records of something else.
    """
    values = flags.FLAGS
    from ssd_centernet.run_directory import CONFIG_NAME, choose_checkpoint
    from ssd_centernet.runs.own_data import coco_download, data_of_run

    # What a training converts it to is the run's own data.
    if values.data_dir and coco_download(values.data_dir) is None:
        return values.data_dir

    found = data_of_run(values.model_dir)
    if found is None:
        choose_checkpoint(values.model_dir)  # Raises an error where there is no run at all.
        raise flags.IllegalFlagValueError(
            f"--data_dir must be given: the data that {values.model_dir} was trained on is not "
            "where it was, or the run does not say."
        )
    if values.data_dir and not (Path(found).parent / CONFIG_NAME).is_file():
        raise flags.IllegalFlagValueError(
            f"--data_dir={values.data_dir} holds COCO as it is downloaded, and {values.model_dir} "
            f"was trained on {found}. Convert it by `ssd_centernet convert` to evaluate on it, or "
            f"leave --data_dir out to evaluate on {found}."
        )
    if say:
        print(f"--data_dir={found}, as the run was trained on it")
    return found


def is_first_process() -> bool:
    """Tell whether this process speaks for all that `ssd_centernet launch` started."""
    return not launched_rank()


def tell_next(*words: str) -> None:
    """Print the command to type next.

    Args:
        words: the command and its flags; where several processes ran, the first one says it.
    """
    if is_first_process():
        print(f"next: {shlex.join(['ssd_centernet', *words])}")


def use_settings_of_training(recipe: Recipe) -> None:
    """Make the parts that a training has beside its images, so that their settings count as used.

    Then a command that shows what `train` will do takes its whole command line, and still refuses a
    setting that has no effect there.
    """
    recipe.optimizer()
    recipe.schedule()
    recipe.loss_scale()
    recipe.rendering()


def whole_split(data_dir: str, given: str | None, remembered: str = "coco_val") -> str:
    """Return the whole name of a split: `val` is coco_val or birds_val, as for `convert --split`.

    Args:
        data_dir: folder of the record files.
        given: by a flag; None takes `remembered`.
        remembered: of the run; in another folder, the split that has its role there.

    Raises:
        FileNotFoundError: there are other splits, or several that may be meant.
    """
    from ssd_centernet.data.splits import list_splits, prefixes_of, same_role

    known = list_splits(data_dir)
    split = given or same_role(data_dir, remembered)
    found = prefixes_of(data_dir, split) or prefixes_of(data_dir, f"coco_{split}")
    if len(found) == 1 or not known:
        return found[0] if found else split
    what = f"several splits {split!r}" if found else f"no records of the split {split!r}"
    listed = f": {', '.join(found)}" if found else f", but of {', '.join(known)}"
    raise FileNotFoundError(
        f"{data_dir} has {what}{listed}: give one of them as --split (--eval_split), or another "
        "--data_dir."
    )


def images_of_run(split: str | None = None) -> list[str]:
    """Return the image files that the run of --model_dir is evaluated on, or of another split.

    Args:
        split: prefix of its record files, or val, test, ...; None is that of the run.

    Raises:
        FileNotFoundError: see `whole_split`.
        flags.Error: the run does not know them, or they are not there any more.
    """
    from ssd_centernet.runs.own_data import data_of_run, eval_split_of_run, images_of_split

    model_dir = flags.FLAGS.model_dir
    data_dir = data_of_run(model_dir)
    remembered = eval_split_of_run(model_dir)
    if data_dir is None:
        split = split or remembered
    else:
        split = whole_split(data_dir, split, remembered)
    found = [] if data_dir is None else images_of_split(data_dir, split)
    if not found:
        raise flags.Error(
            f"Give image files or folders after the flags: those of {split}, for {model_dir}, are "
            "not known, or not there any more."
        )
    print(f"images: the {len(found)} of {split} of {data_dir}, the data of the run")
    return found


def refuse_arguments(argv: list[str]) -> None:
    """Refuse words that are no flags, such as a value after a space after a boolean flag."""
    if len(argv) > 1:
        raise flags.Error(f"Unexpected arguments {argv[1:]}; write every option as --flag=value.")


def progress_bar(total: int, unit: str = "image"):
    """Return a progress bar on stderr; where nobody watches, it says little.

    Args:
        total: how many there are.
        unit: of what.

    Returns:
        A tqdm bar.
    """
    from tqdm import tqdm

    # Redirected to a file, one line every ten seconds says enough.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, unit=unit, file=sys.stderr, mininterval=interval, dynamic_ncols=True)
