"""Which settings of a run that goes on are other than when it was last started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssd_centernet.config import gin_state
from ssd_centernet.config.text import read_bindings
from ssd_centernet.run_directory import CONFIG_NAME

_LISTED = 8
_LONGEST = 32
# Of `train`: what is told elsewhere, as the length is; what changes no weight that is trained; and
# what a run that goes on does not ask, as what it began with.
_NO_MATTER = {
    f"train.{name}"
    for name in (
        *("steps", "epochs", "device", "profile", "use_performance", "tracker", "pictures"),
        *("log_every", "checkpoint_every", "evaluate_every", "keep_checkpoints", "keep_best"),
        *("early_stop_patience", "eval_split", "eval_batch_size", "resume_from"),
        *("fine_tune_checkpoint", "fine_tune_checkpoint_type", "fine_tune_exclude"),
        *("fine_tune_channels", "published_weights"),
    )
}


def settings_path(checkpoint: str | Path) -> Path:
    """Return where the settings of a checkpoint's run are.

    Args:
        checkpoint: prefix of the files of one, or the folder that holds it: a run, or its best/.
    """
    path = Path(checkpoint)
    folder = path if path.is_dir() else path.parent
    inside = folder / CONFIG_NAME
    above = folder.parent / CONFIG_NAME
    return above if above.is_file() and not inside.is_file() else inside


def saved_settings(checkpoint: str | Path) -> dict[str, str]:
    """Read the settings of a checkpoint's run; none where they cannot be read.

    Args:
        checkpoint: as in `settings_path`.

    Returns:
        As `read_bindings`.
    """
    try:
        return read_bindings(settings_path(checkpoint))
    except (OSError, ValueError):
        return {}


def describe_changes(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Say which settings have changed that matter to the weights.

    A setting that only one of both knows has not changed: it belongs to a part that was replaced,
    which is told, or to another version of the library; unless somebody has written it.

    Args:
        before: of the run as it was, see `read_bindings`; empty where they are not known.
        after: of the run as it goes on, which gin holds too.

    Returns:
        A line for each, some of them at most; None where there is none.
    """
    parts = {_part(name) for name in before}
    written = {one.name for one in gin_state.bindings.values()}
    changed = []
    for name, value in after.items():
        was = before.get(name)
        if was is None and not (_part(name) in parts and name in written):
            continue
        if was != value and name not in _NO_MATTER:
            changed.append(f"  {name}: {_shortened(was or 'its default')} -> {_shortened(value)}")
    if not changed:
        return None
    # Settings of the training first, then those of its parts.
    changed.sort(key=lambda line: not line.startswith("  train."))
    more = len(changed) - _LISTED
    lines = changed[:_LISTED] + ([f"  and {more} more"] if more > 0 else [])
    count = "a changed setting" if len(changed) == 1 else f"{len(changed)} changed settings"
    return "\n".join([f"the run goes on with {count}:", *lines])


def _part(name: str) -> str:
    return name.rpartition(".")[0]


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "..."
