"""The run that teaches another one."""

from __future__ import annotations

from ssd_centernet import config
from ssd_centernet.recipe import Recipe
from ssd_centernet.runs.opened import OpenedRun, open_run
from ssd_centernet.runtime.engine import Engine


def open_teacher(recipe: Recipe, engine: Engine) -> OpenedRun | None:
    """Open the run of `train.teacher`; its settings do not mix with those of the recipe.

    Args:
        recipe: of the training. It is asked before the training's own weights are drawn, whose
            draws then are the same with and without a teacher.
        engine: places the teacher beside what is trained.

    Returns:
        The run; None without a teacher.

    Raises:
        FileNotFoundError: no such run or checkpoint.
        ValueError: its settings are not data, or its checkpoint does not fit them.
    """
    if recipe.teacher is None:
        return None
    with config.set_aside(), engine.scope():
        return open_run(recipe.teacher.run, checkpoint=recipe.teacher.checkpoint, device=None)
