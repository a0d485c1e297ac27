"""Commands of the program run one after the other in this process, which has TensorFlow already."""

import contextlib
import io

from absl import flags, logging

from ssd_centernet import config
from ssd_centernet.cli import main

# The logging of absl defines flags of its own where it is imported.
_KEPT = {*flags.FLAGS}
assert logging


def command(words, *, status=0):
    """Run `ssd_centernet WORDS` to its end and return what it printed.

    Args:
        words: of the command line.
        status: the exit status that it must have.
    """
    printed = io.StringIO()
    before = flags.FLAGS["verbosity"].value
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            ended = main._dispatch([*map(str, words)])
    finally:
        for name in {*flags.FLAGS} - _KEPT:
            delattr(flags.FLAGS, name)
        flags.FLAGS["verbosity"].value = before
        config.clear()
    assert ended == status, printed.getvalue()
    return printed.getvalue()
