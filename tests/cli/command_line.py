"""A command line as a user gives it, or parsed in this process as the program would."""

import contextlib
import importlib

from absl import flags

from ssd_centernet import config
from tests.process import cli, environment


def as_a_user(*arguments, status=None):
    """Run `ssd_centernet` with nothing hidden, neither messages nor devices."""
    env = environment(TF_CPP_MIN_LOG_LEVEL=None, CUDA_VISIBLE_DEVICES=None)
    return cli(*arguments, env=env, status=status)


@contextlib.contextmanager
def parsed(command, arguments):
    """Define the flags of a command, parse arguments, and take both back at the end."""
    module = importlib.import_module(f"ssd_centernet.cli.{command}")
    before = set(flags.FLAGS)
    module.define_flags()
    try:
        if hasattr(module, "rewrite_arguments"):
            arguments = module.rewrite_arguments(arguments)
        assert len(flags.FLAGS([command, *arguments])) == 1, "a word that is no flag"
        yield flags.FLAGS
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        config.clear()


@contextlib.contextmanager
def parsed_recipe(arguments):
    """Parse a training's command line and its recipe, gin bindings of flags included."""
    from ssd_centernet.cli import _vendor_flags, train

    with parsed("train", arguments) as values:
        train.parse_recipe(_vendor_flags.resolve(values))
        yield values
