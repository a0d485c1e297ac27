"""Detectors and batches that are made once for commands that take the same settings of a recipe."""

import functools

import tensorflow as tf

from ssd_centernet import recipe as recipe_module
from ssd_centernet.config import gin_state
from ssd_centernet.recipe import Recipe


def once(function, key, kept=lambda result: result):
    """Return a function of gin's that works once for all calls of the same key.

    A later call returns what the first one has made, and lets gin note that the same settings were
    taken again, but for those that it gives itself: that a command makes the call is what is asked,
    not what the call does then.
    """
    made = {}

    @functools.wraps(function)
    def remembering(*args, **kwargs):
        one = key(*args, **kwargs)
        if one not in made:
            before = gin_state.operative()
            result = kept(function(*args, **kwargs))
            taken = gin_state.operative()
            made[one] = result, {name: v for name, v in taken.items() if before.get(name) != v}
        result, taken = made[one]
        gin_state.note_taken(
            {
                (scope, selector): {
                    name: value
                    for name, value in values.items()
                    if name not in kwargs or gin_state.short_name(selector) != function.__name__
                }
                for (scope, selector), values in taken.items()
            }
        )
        return result

    return remembering


def build_once(patch):
    """Let all commands have one detector of each number of classes."""

    def classes(label_map=None, num_classes=None, default_num_classes=None):
        return repr((label_map, num_classes, None if label_map else default_num_classes))

    build = recipe_module.build_detector
    patch.setattr(recipe_module, "build_detector", once(build, classes))


def feed_once(patch):
    """Let all commands have the first batch that any of them was fed, again and again.

    What they ask the recipe for is worked out for each; it ends in a call of `train.batches`. Gin
    gives that call what it does not say itself, so that calls which say the same take the same
    settings, whatever the values.
    """
    made = {}

    def first_batch(batches):
        return tf.data.Dataset.from_tensors(next(iter(batches))).repeat()

    def named(*args, **kwargs):
        return len(args), frozenset(kwargs)

    def fed(recipe, *args, **kwargs):
        batches = made.setdefault(recipe.batches, once(recipe.batches, named, first_batch))
        return training_batches_of(recipe.replace(batches=batches), *args, **kwargs)

    training_batches_of = Recipe.training_batches
    patch.setattr(Recipe, "training_batches", fed)
