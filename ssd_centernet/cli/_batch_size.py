"""--batch_size=auto of `train`: the size that a run keeps, or what finds it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from ssd_centernet.cli._flags import AUTO

if TYPE_CHECKING:
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runtime.distribution import Communicator


def check_auto() -> None:
    """Refuse --batch_size=auto where something else says the size, or nothing is trained.

    Raises:
        flags.IllegalFlagValueError: says what is to be left out.
    """
    values = flags.FLAGS
    if values.batch_size != AUTO:
        return
    if values.inference or values.mode == "eval":
        raise flags.IllegalFlagValueError(
            "--batch_size=auto is for a training; elsewhere the size changes the speed alone: "
            "leave it out."
        )
    if values.static:
        raise flags.IllegalFlagValueError(
            "--batch_size=auto has no effect on --static, whose files have a size: leave it out."
        )
    for text in values.gin_params or ():
        if re.search(r"\btrain\.batch_size\s*=", text):
            raise flags.IllegalFlagValueError(
                f"--batch_size=auto and --gin_params={text!r} both say the batch size: give one."
            )


def take_auto() -> bool:
    """Take --batch_size=auto from the command line, and give a run that goes on its own size.

    Returns:
        Whether the size is to be found.

    Raises:
        ValueError: see `runs.batch_size.size_of_run`.
    """
    values = flags.FLAGS
    if values.batch_size != AUTO:
        return False
    from ssd_centernet.runs.batch_size import size_of_run

    size = size_of_run(values.model_dir, values.resume_from)
    values.batch_size = size
    if size is None:
        return True
    print(f"--batch_size=auto: {size}, as the run had before", flush=True)
    return False


def finder(bindings: Sequence[str], data_dir) -> Callable[[Communicator], tuple[Recipe, str]]:
    """Return what finds the size and reads the recipe again with it, and says why.

    Args:
        bindings: that flags have set, see `config.parse`.
        data_dir: of the training, or several.
    """

    def sized(communicator: Communicator) -> tuple[Recipe, str]:
        from ssd_centernet import config
        from ssd_centernet.recipe import Recipe
        from ssd_centernet.runs.batch_size import find_batch_size

        values = flags.FLAGS
        given = {"gin_file": values.gin_file, "gin_params": values.gin_params}
        request = {**given, "flag_params": list(bindings), "allow_import": values.allow_import}
        if communicator.is_chief:
            print("--batch_size=auto: measuring the memory of a few steps", flush=True)
        size, why = find_batch_size({**request, "data_dir": data_dir}, communicator)
        chosen = [*bindings, f"train.batch_size = {size}"]
        config.parse(*given.values(), flag_params=chosen, allow_import=values.allow_import)
        return Recipe(), why

    return sized
