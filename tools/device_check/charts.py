"""Charts of a check's page, as SVG in its colours."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence

from ssd_centernet.drawing import page
from ssd_centernet.plain_text import counted
from tools.device_check import verdicts

# Of a kernel's name: capitals take most room.
_LETTERS = 29
_COLORS = {"fp32": "blue", "tf32": "teal", "bf16": "orange", "fp16": "run3"}
_WIDTH, _HEIGHT, _LEFT, _BELOW = 250, 120, 40, 16


def losses(parts: Mapping) -> str:
    """Draw the losses of each recipe in each precision over those of the CPU."""
    figures, shown = [], set()
    for name, one in parts.items():
        if not (name.startswith("steps") and name.endswith("reference") and one["found"]):
            continue
        recipe = name.split()[1]
        curves, skipped = {"cpu": verdicts.totals(one["found"])}, {}
        for precision in _COLORS:
            found = parts.get(f"steps {recipe} {precision}", {}).get("found")
            if found:
                # Steps that were skipped too: each loss stands at its step.
                curves[precision] = [verdicts.number(step["total"]) for step in found["losses"]]
                skipped[precision] = found["skipped"]
        away = [
            f"{precision} skipped {counted(skipped[precision], 'step')}"
            if skipped[precision]
            else f"{precision} {max(verdicts.relative(curve, curves['cpu'])):.1e}"
            for precision, curve in curves.items()
            if precision != "cpu"
        ]
        shown |= set(curves)
        caption = f"furthest from the CPU: {', '.join(away) or 'nothing to compare'}"
        figures.append(page.figure(recipe, _curves(curves, recipe), caption))
    if not figures:
        return ""
    keys = [(color, name) for name, color in _COLORS.items() if name in shown]
    legend = "".join(f'<li><i class="{style}"></i>{name}</li>' for style, name in keys)
    return (
        "<p>Total loss of the first steps on one batch, with weights and pictures that NumPy drew. "
        "The broad line is float32 on the CPU; the others, on the device, should lie on it.</p>"
        f'<ul class="legend">{legend}</ul><div class="curves">{"".join(figures)}</div>'
    )


def _curves(curves: Mapping[str, Sequence[float]], recipe: str) -> str:
    finite = [v for curve in curves.values() for v in curve if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = max(high - low, 1e-3 * max(abs(high), 1e-6))
    low, span = low - 0.06 * span, 1.12 * span
    length = max(len(curve) for curve in curves.values())

    def place(index: int, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 4) * index / max(1, length - 1)
        return f"{x:.1f},{4 + (_HEIGHT - 8 - _BELOW) * (1 - (value - low) / span):.1f}"

    lines = []
    shares = (0.1, 0.5, 0.9)
    values = [low + share * span for share in shares]
    # As few digits as tell them apart.
    digits = next((n for n in (3, 4, 5) if len({f"{one:.{n}g}" for one in values}) == 3), 6)
    for share, value in zip(shares, values, strict=True):
        y = 4 + (_HEIGHT - 8 - _BELOW) * (1 - share)
        lines.append(
            f'<path class="grid" d="M{_LEFT},{y:.1f}H{_WIDTH - 4}"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.{digits}g}</text>'
        )
    for name, curve in curves.items():
        style = "cpu" if name == "cpu" else _COLORS[name]
        points = [place(i, v) for i, v in enumerate(curve) if math.isfinite(v)]
        if points:
            lines.append(f'<path class="{style}" d="M{" L".join(points)}"/>')
    base = _HEIGHT - 3
    lines.append(
        f'<text x="{_LEFT}" y="{base}">step 1</text>'
        f'<text x="{_WIDTH - 4}" y="{base}" text-anchor="end">{length}</text>'
    )
    label = html.escape(f"losses of {recipe} in {len(curves) - 1} precisions and on the CPU")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(lines)}</svg>"
    )


def speed(parts: Mapping) -> str:
    """Draw images a second of each recipe and precision, without and with XLA, and the memory."""
    bars, memory = [], []
    for name, one in parts.items():
        if not name.startswith("speed") or not one["found"]:
            continue
        _, recipe, precision, form = name.split()
        line = one["found"][0]
        label = f"{recipe} {precision}" if form == "plain" else "with XLA"
        style = _COLORS[precision]
        bars.append((label, line["images_per_second"], style, form == "plain"))
        peak = line.get("peak_device_mb")
        told = f"{peak:,.0f}" if peak else "not told"
        memory.append(
            f'<tr><th class="word">{html.escape(f"{recipe} {precision} {form}")}</th>'
            f"<td>{line['images_per_second']:.4g}</td><td>{line['batch_size']}</td>"
            f"<td>{told}</td><td>{line['peak_rss_mb']:,.0f}</td></tr>"
        )
    if not bars:
        return ""
    head = '<th class="word">train step</th><th>images/s</th><th>batch</th>'
    head += "<th>device, MB</th><th>host, MB</th>"
    caption = "Peak memory of the process so far, in MB of 10<sup>6</sup> bytes."
    rows = "".join(memory)
    details = page.table("wide", "memory", caption, head, rows)
    return (
        "<p>Images a second of a train step on one batch, the median of its windows.</p>"
        f'<div class="bars">{_bars(bars)}</div>'
        f"<details><summary>Figures and memory</summary>{details}</details>{_detection(parts)}"
    )


def _detection(parts: Mapping) -> str:
    rows = "".join(
        f'<tr><th class="word">{html.escape(name.split()[1])}</th>'
        f"<td>{one['found'][0]['latency_ms']:.4g}</td>"
        f"<td>{one['found'][0]['latency_ms_p99']:.4g}</td></tr>"
        for name, one in parts.items()
        if name.startswith("detection") and one["found"]
    )
    if not rows:
        return ""
    head = '<th class="word">network, decoding and NMS</th><th>ms, mean</th><th>ms, 99 of 100</th>'
    return page.table("", "detection", "One image at a time, until it is on the host.", head, rows)


def _bars(rows: Sequence[tuple[str, float, str, bool]], gap: int = 12) -> str:
    """Draw bars: label, value, colour, and whether one begins a group."""
    largest = max(value for _, value, _, _ in rows)
    lines, y = [], 0
    for label, value, style, first in rows:
        y += gap if first and lines else 0
        width = 520 * value / largest
        lines.append(
            f'<text class="{"name" if first else ""}" x="252" y="{y + 14}" text-anchor="end">'
            f'{html.escape(label)}</text><g class="{style}" opacity="{1 if first else 0.55}">'
            f'<rect x="260" y="{y + 3}" width="{width:.1f}" height="14" rx="2"/></g>'
            f'<text x="{266 + width:.1f}" y="{y + 14}">{value:.4g}</text>'
        )
        y += 20
    return (
        f'<svg viewBox="0 0 860 {y + 4}" role="img" aria-label="images a second">'
        f"{''.join(lines)}</svg>"
    )


def profile(parts: Mapping) -> str:
    """Draw the kernels that took most of the time of the traced steps."""
    found = parts.get("training profile", {}).get("found")
    if not found or not found["longest"]:
        return ""
    rows = [(_kernel(one["name"]), one["ms"], "blue", True) for one in found["longest"]]
    return (
        "<p>Milliseconds of three steps of <code>ssd_demo</code> on "
        f"{html.escape(found['plane'])}, summed over its threads or streams; "
        f"{found['busy_ms']:.4g} ms in all.</p>"
        f'<div class="bars">{_bars(rows, gap=2)}</div>'
    )


def _kernel(name: str) -> str:
    """Return the name of a kernel without the names around it, short enough for the drawing."""
    name = re.sub(r"^void |\w+::", "", name.lstrip("_"))
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"


def places(parts: Mapping) -> str:
    """List the devices on which the operations of each train step ran."""
    machine = parts.get("machine", {}).get("found") or {}
    rows = []
    for name, one in parts.items():
        if not name.startswith("steps") or not name.endswith("fp32") or not one["found"]:
            continue
        counts = {device: sum(ops.values()) for device, ops in one["found"]["places"].items()}
        told = ", ".join(f"{device}: {number:,}" for device, number in counts.items())
        host = one["found"]["places"].get("CPU:0", {}) if machine.get("kind") != "CPU" else {}
        kinds = ", ".join(sorted(host)) or "none"
        rows.append(
            f'<tr><th class="word">{html.escape(name.split()[1])}</th>'
            f'<td class="text">{html.escape(told)}</td>'
            f'<td class="text">{html.escape(kinds)}</td></tr>'
        )
    if not rows:
        return ""
    head = '<th class="word">train step</th><th class="word">operations</th>'
    head += '<th class="word">left to the host</th>'
    caption = "Operations of the graphs as TensorFlow ran them, by device."
    return page.table("wide", "operations", caption, head, "".join(rows))
