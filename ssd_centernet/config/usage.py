"""Which settings had an effect: one that nothing asked for is a mistake."""

import fnmatch
from collections.abc import Iterable, Sequence

from ssd_centernet.config.gin_state import (
    MACRO,
    Binding,
    ConfigError,
    Key,
    bindings,
    near,
    operative,
    reachable_keys,
    replaced,
    short_name,
    used_keys,
)


def assert_all_used(allow: Iterable[str] = (), *, overrides_only: bool = False) -> None:
    """Raise when a binding had no effect because nothing that ran asked for it.

    To be called when everything that the run uses has been built (after the first step).

    Settings of a part that a later line replaced are allowed, such as those of a recipe's schedule
    before `train.schedule = @ConstantRate`.

    Args:
        allow: names that this run need not use, such as 'evaluate' (all its parameters),
            'evaluate.batch_size' or 'data.*' (shell wildcards). What an allowed binding refers
            to is allowed as well.
        overrides_only: check the bindings of flags and `gin_params` alone, as one does when
            the files are the saved settings of another kind of run.

    Raises:
        ConfigError: lists each such binding with its place and near matches.
    """
    used = used_keys()
    allowed = _allowed_keys(tuple(allow))
    unused = [
        binding
        for key, binding in bindings.items()
        if key not in used | allowed | replaced and (binding.override or not overrides_only)
    ]
    # A macro that only unused bindings refer to is not a second mistake.
    referred = reachable_keys(b[:3] for b in unused if b.selector != MACRO)
    unused = [b for b in unused if b.selector != MACRO or b[:3] not in referred]
    if unused:
        raise ConfigError(_unused_message(unused, used))


def _allowed_keys(patterns: Sequence[str]) -> set[Key]:
    """Return the bindings that match a pattern, and those that they refer to."""
    roots = set()
    for key, binding in bindings.items():
        names = (binding.name, binding.name.rpartition(".")[0], short_name(binding.selector))
        if any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns):
            roots.add(key)
    return roots | reachable_keys(roots)


def _unused_message(unused: Sequence[Binding], used: set[Key]) -> str:
    """Write the error that lists unused bindings with places and near matches."""
    names = [bindings[key].name for key in used]
    for (scope, selector), values in operative().items():
        if selector != MACRO:
            names += [Binding(scope, selector, name, "", False).name for name in values]
    lines = []
    for binding in unused:
        lines.append(f"  {binding.name} ({binding.place}) {near(binding.name, names)}".rstrip())
    count = "This setting was" if len(unused) == 1 else f"These {len(unused)} settings were"
    return (
        f"{count} never used: a typo, or a setting for a part that this recipe does not use. "
        "Remove or correct:\n" + "\n".join(lines)
    )
