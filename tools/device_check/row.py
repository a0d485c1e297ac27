"""A check as a row of the table in docs/devices.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.device_check import verdicts

HEAD = (
    "device",
    "software",
    "day",
    "parts",
    "arrays of the originals",
    "largest distance of losses",
    "same bits",
    "images/s without and with XLA",
    "memory",
    "what failed",
)


def table(rows: list[str]) -> str:
    """Return rows with the head of the table."""
    return "\n".join([_line(HEAD), "|" + "---|" * len(HEAD), *rows])


def row(result: Mapping[str, Any]) -> str:
    """Return a Markdown row.

    Args:
        result: of a check.
    """
    judged, parts = verdicts.judge(result), result["parts"]
    machine = parts.get("machine", {}).get("found") or {}
    software = [f"TensorFlow {machine.get('versions', {}).get('tensorflow', '?')}"]
    if machine.get("kind") == "GPU":
        software += [f"{key} {value}" for key, value in machine["built_with"].items()]
    wrong = [f"`{name}`" for name, one in judged.items() if one.verdict == "FAIL"]
    verdict_of = [one.verdict for one in judged.values()]
    count = f"{verdict_of.count('ok')} of {len(judged)} ok"
    left = verdict_of.count("not run")
    return _line(
        (
            f"`{machine.get('kind', '?').lower()}`: {machine.get('name') or 'unknown'}",
            ", ".join(software),
            result["changed"][:10],
            (count + f", {left} not run" * bool(left) + " (quick)" * result["settings"]["quick"]),
            _arrays(parts),
            _losses(parts),
            _bits(judged),
            _speed(parts),
            _memory(parts),
            ", ".join(wrong[:6]) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "") or "-",
        )
    )


def _line(cells) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _arrays(parts: Mapping) -> str:
    found = [one["found"] for name, one in parts.items() if name.startswith("parity")]
    found = [one for one in found if one]
    passed = sum(one["passed"] for one in found)
    return f"{passed:,} of {passed + sum(one['failed'] for one in found):,}" if found else "-"


def _losses(parts: Mapping) -> str:
    """Say how far the losses of each precision are from those of the CPU, the furthest recipe."""
    away: dict[str, float] = {}
    for name, one in parts.items():
        reference = parts.get(f"{name.rpartition(' ')[0]} reference", {}).get("found")
        if name.startswith("steps") and not name.endswith("reference") and one["found"]:
            if reference and not one["found"]["skipped"]:
                pairs = verdicts.totals(one["found"]), verdicts.totals(reference)
                precision = one["found"]["precision"]
                away[precision] = max(away.get(precision, 0.0), *verdicts.relative(*pairs))
    return ", ".join(f"{name} {value:.1e}" for name, value in away.items()) or "-"


def _bits(judged: Mapping) -> str:
    pairs = [one for name, one in judged.items() if name.startswith("bits") and "second" in name]
    same = sum(one.verdict == "ok" for one in pairs)
    return f"{same} of {len(pairs)} recipes" if pairs else "-"


def _speed(parts: Mapping) -> str:
    told = []
    for name, one in parts.items():
        if name.startswith("speed") and name.endswith("plain") and one["found"]:
            compiled = parts.get(name.replace(" plain", " xla"), {}).get("found")
            words = name.split()
            text = f"{words[1]} {words[2]} {one['found'][0]['images_per_second']:.4g}"
            told.append(f"{text}, {compiled[0]['images_per_second']:.4g}" if compiled else text)
    return "; ".join(told[:4]) or "-"


def _memory(parts: Mapping) -> str:
    """Return the most memory of a process, of the device where it is known."""
    found = [one["found"] for one in parts.values() if one["found"]]
    lines = [one[0] if isinstance(one, list) else one for one in found if one]
    for key, what in (("peak_device_mb", "device"), ("peak_rss_mb", "host")):
        peaks = [line[key] for line in lines if isinstance(line, dict) and line.get(key)]
        if peaks:
            return f"{what} {max(peaks):,.0f} MB"
    return "-"
