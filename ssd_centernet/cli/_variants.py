"""The variants of a study, built as `train` builds them, before any of them is trained."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from ssd_centernet.cli import _flags, _vendor_flags, train
from ssd_centernet.cli._errors import message_for_user
from ssd_centernet.runs.ablation import Plan
from ssd_centernet.runs.study import IMAGES, OWN, Study, Variant

if TYPE_CHECKING:
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.training.length import RunLength

_LENGTHS = ("--epochs=", "--num_steps=")


def plan_variants(study: Study) -> list[Plan]:
    """Read and build every variant of a study, and give all of them the same budget.

    The flags of this process become those of `train`, so nothing else may be read from them after.

    Args:
        study: see `runs.study.read_study`.

    Returns:
        How each is trained, in the order of the study.

    Raises:
        ValueError: a variant cannot be trained, is never evaluated, is the same as another, or
            does not fit the budget; names the line of the file.
    """
    train.define_flags()
    lengths = [_told(study, one, lambda one=one: _own_length(one)) for one in study.variants]
    images = _images(study, lengths)
    plans: list[Plan] = []
    for variant, own in zip(study.variants, lengths, strict=True):
        arguments = variant.arguments
        if images is not None:
            steps, rest = divmod(images, own.global_batch_size)
            if rest:
                raise ValueError(_uneven(study, variant, images, lengths))
            if steps != own.total_steps:
                arguments = [one for one in arguments if not one.startswith(_LENGTHS)]
                arguments.append(f"--num_steps={steps}")
        plan = _told(study, variant, lambda v=variant, a=arguments: _plan(v, a))
        place = f"{study.path}, line {variant.line}: {variant.name}"
        if images is not None and plan.images != images:
            raise ValueError(
                f"{place} sees {plan.images} images, and the budget is {images}: a setting in "
                f"gin_params holds its length. Remove it, or set 'budget: {OWN}'."
            )
        for other in plans:
            if other.settings == plan.settings:
                raise ValueError(
                    f"{place} trains with the same settings as {other.name}: nothing would be "
                    "compared. Does it set what the recipe has already?"
                )
        plans.append(plan)
    return plans


def _told(study: Study, variant: Variant, act):
    """Call a function; what a user can mend is told with the line of the file."""
    try:
        return act()
    except Exception as error:
        known = str(error) if isinstance(error, flags.Error) else message_for_user(error)
        if known is None:
            raise
        place = f"{study.path}, line {variant.place_of(known)} (variant {variant.name})"
        raise ValueError(f"{place}: {known}") from error


def _images(study: Study, lengths: Sequence[RunLength]) -> int | None:
    """Return how many images every run sees; None where each has a length of its own."""
    budget, base = study.budget, lengths[0]
    if budget.unit == OWN:
        return None
    if budget.unit == IMAGES and budget.number is not None:
        return budget.number
    return (budget.number or base.total_steps) * base.global_batch_size


def _uneven(study: Study, variant: Variant, images: int, lengths: Sequence[RunLength]) -> str:
    common = math.lcm(*(one.global_batch_size for one in lengths))
    near = max(1, round(images / common)) * common
    batch = lengths[study.variants.index(variant)].global_batch_size
    return (
        f"{study.path}, line {variant.line}: {variant.name} cannot see {images} images in whole "
        f"steps of {batch}. Equal budgets need a number that all batches divide: 'budget: "
        f"{{{IMAGES}: {near}}}' is the nearest."
    )


def _parsed(arguments: Sequence[str]) -> Recipe:
    """Parse flags of `train` as that command does, and the recipe with them."""
    from ssd_centernet.recipe import Recipe
    from ssd_centernet.runs.splits import settle_splits

    values = flags.FLAGS
    debug = [f"--debug={values.debug}"]
    values.unparse_flags()
    try:
        values(["train", *train.rewrite_arguments(arguments), *debug])
    finally:
        values.mark_as_parsed()  # Who tells an error asks for --debug.
    statements = _vendor_flags.resolve(values)
    _flags.complete_splits("train_split", "eval_split")
    train.parse_recipe(statements)
    return settle_splits(Recipe(), values.data_dir)


def _own_length(variant: Variant) -> RunLength:
    recipe = _parsed(variant.arguments)
    length = recipe.length(recipe.count_images(flags.FLAGS.data_dir))
    if not recipe.loop_options(length).evaluate_every:
        raise ValueError(
            "it is never evaluated: the recipe or the study has train.evaluate_every = 0 or no "
            "train.eval_split. A large interval evaluates once, at the last step."
        )
    return length


def _plan(variant: Variant, arguments: Sequence[str]) -> Plan:
    """Build what a training of these flags builds, and take its settings."""
    from ssd_centernet import config
    from ssd_centernet._keras import keras
    from ssd_centernet.config.text import bindings_of
    from ssd_centernet.data.mixture import folders_of, merged_label_map
    from ssd_centernet.runtime.device import select_device

    recipe, data_dir = _parsed(arguments), flags.FLAGS.data_dir
    length = recipe.length(recipe.count_images(data_dir))
    # An accelerator has nothing to do here, and its memory is for the trainings.
    with select_device("cpu").scope():
        label_map = merged_label_map(data_dir)[0]
        detector = recipe.detector(label_map)
        recipe.trainer(detector, length)
    for for_step in {False, recipe.augment_on == "device"}:
        recipe.training_batches(detector, data_dir, label_map=label_map, for_step=for_step)
    config.assert_all_used()
    splits = {f"train.{name}": getattr(recipe, name) for name in ("train_split", "eval_split")}
    settings = bindings_of(config.operative_config(splits))
    keras.backend.clear_session()
    return Plan(
        name=variant.name,
        arguments=list(arguments),
        steps=length.total_steps,
        batch_size=length.global_batch_size,
        data=[os.path.abspath(folder) for folder in folders_of(data_dir)],
        settings={name: text for name, text in settings.items() if name != "train.seed"},
    )
