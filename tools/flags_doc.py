"""Write docs/flags.md from the flags as the commands define them.

python -m tools.flags_doc docs/flags.md
"""

import importlib
import sys

from absl import flags

from ssd_centernet.cli import _vendor_flags
from ssd_centernet.cli._vendor_table import ALIASES, REPLACED, SAME, SYSTEMS
from ssd_centernet.cli.main import COMMANDS, flag_text
from ssd_centernet.files import write_atomically

_HEAD = """# Flags

Made by `python -m tools.flags_doc docs/flags.md`; a test holds it to the code.

A flag that is not given leaves a setting as the recipe has it. `--gin_params` wins over other
flags, flags win over the recipe. Every command also has `--debug`, which shows the Python traceback
of an error, and absl's `--verbosity` and `--flagfile`.
"""
_VENDORS = """## Flags of the published systems

`ssd_centernet train` understands the command lines of the systems whose recipes it has: one-letter
flags, dashes inside names (`work-dir`), and their names for a setting. Two flags for one setting
must agree, and a flag that the recipe has no use for is an error that names it. Of a flag that is
not accepted the error says what replaces it.
"""


def flags_of(command: str) -> dict[str, list[flags.Flag]]:
    """Define the flags of a command, and take them back.

    Args:
        command: its name.

    Returns:
        Name of the defining module -> its flags by name.
    """
    values = flags.FLAGS
    before = set(values)
    importlib.import_module(f"ssd_centernet.cli.{command}").define_flags()
    defined = sorted(set(values) - before)
    found: dict[str, list[flags.Flag]] = {}
    for name in defined:
        found.setdefault(values.find_module_defining_flag(name), []).append(values[name])
    for name in defined:
        delattr(values, name)
    return found


def document() -> str:
    """Return docs/flags.md."""
    parts = [_HEAD]
    for command, summary in COMMANDS.items():
        groups = flags_of(command)
        groups.pop(_vendor_flags.__name__, None)
        rows = sorted(
            (flag for group in groups.values() for flag in group), key=lambda flag: flag.name
        )
        parts.append(f"## {command}\n\n{summary[0].upper()}{summary[1:]}.\n")
        parts.append(_table(("flag", "meaning"), [flag_text(flag) for flag in rows]))
    parts += [_VENDORS, _systems(), _vendor_table()]
    return "\n".join(parts)


def _systems() -> str:
    return _table(("letter", "system"), list(SYSTEMS.items()))


def _vendor_table() -> str:
    rows = []
    for row in SAME:
        rows.append((_named(row), row.systems, "the same"))
    for row in ALIASES:
        rows.append((_named(row), row.systems, f"{row.help} {_vendor_flags.describe(row)}"))
    for row in REPLACED:
        rows.append((row.name, row.systems, _vendor_flags.replacement(row)))
    return _table(("flag", "of", "here"), sorted(rows))


def _named(row: object) -> str:
    return f"{row.name}, -{row.short}" if row.short else row.name


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(write_atomically(sys.argv[1], document()))
    else:
        print(document(), end="")
