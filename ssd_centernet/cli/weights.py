"""Published weights: list, fetch, check and convert them.

  ssd_centernet weights list [NAME ...]   the table, or all that is known of some rows
  ssd_centernet weights fetch NAME ...    fetch them; `train --fine_tune_checkpoint=NAME` does too
  ssd_centernet weights check [NAME ...]  compare what is here with its checksums
  ssd_centernet weights convert NAME|PATH --output=FILE.keras [--gin_file=RECIPE]

`check` and `convert` with --gin_file put weights into the detector of a recipe and say what fits:
`check` writes nothing, `convert` a .keras file that `sc.load` and --fine_tune_checkpoint read.

The files lie in ~/.cache/ssd_centernet/weights/NAME/, or in $SSD_CENTERNET_WEIGHTS/NAME/. A machine
without a network gets a copy of such a folder, or sets $SSD_CENTERNET_WEIGHTS_MIRROR to the address
of one. docs/weights.md has the whole table.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence

from absl import flags

from ssd_centernet.cli import _flags
from ssd_centernet.files import remove_leftovers, temporary_folder

FLAGS = flags.FLAGS
_ACTIONS = ("list", "fetch", "check", "convert")


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string(
        "gin_file",
        None,
        "Recipe whose detector the weights go into (default of convert: that of the table).",
    )
    flags.DEFINE_multi_string("gin_params", None, "A setting of that recipe. Repeatable.")
    _flags.define_allow_import()
    flags.DEFINE_string(
        "label_map", None, "Classes of that detector: a pbtxt file (default: those of COCO)."
    )
    flags.DEFINE_string("output", None, "The .keras file that convert writes.")
    flags.DEFINE_boolean("here", False, "list: only what is on this machine.")


def main(argv: list[str]) -> int:
    """Run the command: its first argument says what to do."""
    action, names = (argv[1], argv[2:]) if len(argv) > 1 else ("", [])
    if action not in _ACTIONS:
        raise flags.Error(f"say what to do first: {', '.join(_ACTIONS)}; got {action or 'nothing'}")
    return {"list": _list, "fetch": _fetch, "check": _check, "convert": _convert}[action](names)


def _list(names: Sequence[str]) -> int:
    from ssd_centernet.text_table import text_table
    from ssd_centernet.weights import catalog, fetching

    if names:
        for name in names:
            row = catalog.find(name)
            print(catalog.described(row))
            print(f"  {'here':<10} {fetching.place(row)}")
        return 0
    rows = [
        (row.name, row.kind, row.recipe, row.framework, row.result or "", "here" if here else "")
        for row in catalog.ROWS.values()
        if (here := fetching.is_complete(row)) or not FLAGS.here
    ]
    head = ("name", "what", "recipe", "framework", "published result", "")
    print(text_table([head, *rows], words=range(6)))
    print(
        "\nEach, and where it lies: ssd_centernet weights list NAME. Those that are fetched lie in "
        f"{fetching.cache_folder()}."
    )
    return 0


def _fetch(names: Sequence[str]) -> int:
    from ssd_centernet.weights import catalog, fetching
    from ssd_centernet.weights.download import Console

    if not names:
        raise flags.Error("fetch needs names; `ssd_centernet weights list` shows them")
    for name in names:
        path = fetching.locate(name, say=Console())
        for file, compared in fetching.check(catalog.find(name)).items():
            print(f"{file}: compared with {compared}")
        print(f"{name}: {path}")
    return 0


def _check(names: Sequence[str]) -> int:
    from ssd_centernet.weights import catalog, fetching

    if FLAGS.gin_file:
        for name in names:
            _, table = _restored(name, FLAGS.gin_file)
            print(table.report())
        return 0
    rows = [catalog.find(name) for name in names] or [
        row for row in catalog.ROWS.values() if fetching.is_complete(row)
    ]
    wrong = 0
    for row in rows:
        if not fetching.is_complete(row):
            print(f"{row.name}: not here")
            wrong += bool(names)
            continue
        try:
            for file, compared in fetching.check(row).items():
                print(f"{row.name}/{file}: right, compared with {compared}")
        except ValueError as error:
            wrong += 1
            print(f"{row.name}: {error}", file=sys.stderr)
    if not rows:
        print(f"nothing is in {fetching.cache_folder()}")
    return 1 if wrong else 0


def _convert(names: Sequence[str]) -> int:
    from ssd_centernet._keras import check_keras_file
    from ssd_centernet.weights import catalog

    if len(names) != 1 or not FLAGS.output:
        raise flags.Error("convert needs one name or path, and --output=FILE.keras")
    if not FLAGS.output.endswith(".keras"):
        raise flags.IllegalFlagValueError(f"--output={FLAGS.output}: expected a name in .keras")
    check_keras_file(FLAGS.output)
    row = catalog.named(names[0])
    recipe = FLAGS.gin_file or (row.recipe if row else None)
    if recipe is None:
        raise flags.Error("convert of a path needs --gin_file, the recipe of its network")
    detector, table = _restored(names[0], recipe)
    print(table.report())
    folder, name = os.path.split(os.path.abspath(FLAGS.output))
    remove_leftovers(folder, [glob.escape(name)], say=print)
    with temporary_folder(FLAGS.output) as partial:
        detector.save(partial / name)
        os.replace(partial / name, FLAGS.output)
    print(f"wrote {FLAGS.output}")
    return 0


def _restored(source: str, recipe: str) -> tuple:
    """Build the detector of a recipe, put weights into it and tell what fitted."""
    from ssd_centernet.api import build
    from ssd_centernet.labels import LabelMap
    from ssd_centernet.weights import catalog, restore
    from ssd_centernet.weights.download import Console

    row = catalog.named(source)
    settings = [*(row.settings if row and row.recipe == recipe else ()), *(FLAGS.gin_params or ())]
    labels = LabelMap.from_pbtxt(FLAGS.label_map) if FLAGS.label_map else LabelMap.coco()
    allowed = FLAGS.allow_import
    detector = build(recipe, label_map=labels, settings=settings, allow_import=allowed)
    return detector, restore(detector, source, say=Console())
