"""The page of a check: one HTML file that needs no other."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd_centernet.drawing import page as parts_of_pages
from ssd_centernet.files import write_atomically
from tools.device_check import charts, verdicts

_KINDS = {
    "machine": "Machine",
    "doctor": "Installation",
    "parity": "Arrays of the originals",
    "steps": "First steps beside the CPU",
    "bits": "Same bits",
    "speed": "Training speed",
    "detection": "Detection speed",
    "training": "A whole training",
    "several": "Two devices",
}
_MARKS = {"ok": "&#10003;", "FAIL": "&#10007;", "not run": "&ndash;"}
_STYLE = """<style>
.ok { color: var(--teal); } .bad { color: var(--orange); } .left { color: var(--faint); }
td.mark, span.mark { font-weight: 700; }
.cards.checks { grid-template-columns: repeat(5, 1fr); }
.cards .worse { background: var(--orange); color: var(--paper); }
.cards .worse small { color: inherit; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr));
  gap: 22px 24px; }
.curves svg, .bars svg { width: 100%; height: auto; display: block; }
.curves path { fill: none; stroke: currentColor; stroke-width: 1.6; vector-effect:
  non-scaling-stroke; }
.curves .grid { stroke: var(--rule); stroke-width: 1; }
.curves .cpu { stroke-width: 5; opacity: .28; }
svg text { font-size: 11px; fill: var(--faint); font-variant-numeric: tabular-nums; }
.bars text { font-size: 12.5px; } .bars .name { fill: var(--ink); }
.bars rect { fill: currentColor; }
.kinds { display: grid; grid-template-columns: minmax(0, 1fr); gap: 4px; margin: 0 0 8px; }
.kinds > div { display: grid; grid-template-columns: 290px minmax(0, 1fr); gap: 14px;
  align-items: center; }
.strip { display: flex; gap: 3px; flex-wrap: wrap; }
.strip i { width: 17px; height: 17px; border-radius: 4px; background: currentColor; }
.strip .left { opacity: .35; }
td.text { text-align: left; white-space: normal; min-width: 24ch; }
@media (max-width: 760px) { .cards.checks { grid-template-columns: repeat(2, 1fr); }
  .kinds > div { grid-template-columns: minmax(0, 1fr); gap: 2px; } }
</style>"""


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write the page of a check, whole or not at all."""
    write_atomically(path, document(result))


def document(result: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        result: as `Results.to_dict` returns it.
    """
    judged = verdicts.judge(result)
    # What was repeated stands last in the file.
    order = {kind: number for number, kind in enumerate(_KINDS)}
    judged = dict(sorted(judged.items(), key=lambda one: order.get(one[0].split()[0], 99)))
    parts = result["parts"]
    machine = (parts.get("machine") or {}).get("found") or {}
    name = machine.get("name") or "A device"
    quick = " Few channels and small images (<code>--quick</code>)." * result["settings"]["quick"]
    head = (
        f'<p class="faint">{_esc(verdicts.sentence(judged))}. {_day(result["begun"])} '
        f"to {_day(result['changed'])} UTC.{quick}</p>{_STYLE}"
    )
    wrong = [key for key, one in judged.items() if one.verdict == "FAIL"]
    sections = {"What came out": _overview(judged) + _failures(wrong, judged, parts)}
    for title, make in (
        ("Losses", charts.losses),
        ("Speed", charts.speed),
        ("Where the time went", charts.profile),
        ("Where operations ran", charts.places),
    ):
        if shown := make(parts):
            sections[title] = shown
    sections["All parts"] = _all(judged, parts)
    sections["Machine"] = _machine(machine)
    return parts_of_pages.page(
        f"{name}: check of a device",
        head=head,
        opening=_cards(judged, parts),
        sections=sections,
    )


def _esc(value: object) -> str:
    return html.escape(str(value))


def _day(moment: str) -> str:
    """Write a moment without seconds and zone."""
    return _esc(moment[:16].replace("T", " "))


def _cards(judged: Mapping[str, verdicts.Judged], parts: Mapping) -> str:
    def share(kinds: Sequence[str], only: str = "") -> tuple[str, bool]:
        chosen = [one for name, one in judged.items() if name.split()[0] in kinds and only in name]
        chosen = [one for one in chosen if one.verdict != "not run"]
        good = sum(one.verdict == "ok" for one in chosen)
        return (f"{good}/{len(chosen)}" if chosen else "–"), good < len(chosen)

    arrays = [one["found"] for name, one in parts.items() if name.startswith("parity")]
    passed = sum(one["passed"] for one in arrays if one)
    all_arrays = passed + sum(one["failed"] for one in arrays if one)
    cells = [
        (*share(tuple(_KINDS)), "parts are as they should be"),
        (f"{passed:,}", passed < all_arrays, f"of {all_arrays:,} arrays of the originals agree"),
        (*share(("steps",)), "recipes in a precision are like the CPU"),
        (*share(("bits",), "second"), "recipes train to the same bits twice"),
        (*share(("training", "several")), "trainings from records, on one device and two"),
    ]
    cards = "".join(
        f'<li class="{"worse" if bad else "main" if not number else ""}"><b>{value}</b>'
        f"<small>{text}</small></li>"
        for number, (value, bad, text) in enumerate(cells)
    )
    return f'<ul class="cards checks">{cards}</ul>'


def _overview(judged: Mapping[str, verdicts.Judged]) -> str:
    """Show each part as a square, kind by kind."""
    styles = {"ok": "ok", "FAIL": "bad", "not run": "left"}
    rows = []
    for kind, title in _KINDS.items():
        mine = [(name, one) for name, one in judged.items() if name.split()[0] == kind]
        squares = "".join(
            f'<i class="{styles[one.verdict]}" title="{_esc(f"{name}: {one.verdict} {one.text}")}">'
            "</i>"
            for name, one in mine
        )
        good = sum(one.verdict == "ok" for _, one in mine)
        label = f"{good} of {len(mine)} ok" if mine else "not asked for"
        rows.append(
            f'<div><span>{title} <span class="faint">{label}</span></span>'
            f'<div class="strip" role="img" aria-label="{title}: {label}">{squares}</div></div>'
        )
    return f'<div class="kinds">{"".join(rows)}</div>'


def _failures(wrong: Sequence[str], judged: Mapping, parts: Mapping) -> str:
    if not wrong:
        return "<p>Nothing failed.</p>"
    blocks = []
    for name in wrong:
        said = parts[name].get("said") or ""
        shown = f"<pre>{_esc(said)}</pre>" if said else ""
        blocks.append(
            f"<details{' open' * (len(wrong) < 4)}><summary><b>{_esc(name)}</b>: "
            f"{_esc(judged[name].text)}</summary>{shown}</details>"
        )
    return f"<h3>What failed</h3>{''.join(blocks)}"


def _all(judged: Mapping, parts: Mapping) -> str:
    styles = {"ok": "ok", "FAIL": "bad", "not run": "left"}
    rows = "".join(
        f'<tr><th class="word">{_esc(name)}</th>'
        f'<td class="mark {styles[one.verdict]}">{_MARKS[one.verdict]} {one.verdict}</td>'
        f"<td>{parts[name]['seconds']:.0f} s</td>"
        f'<td class="text">{_esc(one.text)}</td></tr>'
        for name, one in judged.items()
    )
    head = '<th class="word">part</th><th>verdict</th><th>time</th><th class="word">result</th>'
    return parts_of_pages.table(
        "wide", "all parts", "Each part is a process of its own, with a time limit.", head, rows
    )


def _machine(machine: Mapping) -> str:
    if not machine:
        return "<p>The device could not be opened.</p>"
    versions = ", ".join(f"{key} {value}" for key, value in machine["versions"].items())
    built = ", ".join(f"{key} {value}" for key, value in machine["built_with"].items())
    drivers = "; ".join(f"{key}: {value}" for key, value in machine["drivers"].items())
    facts = {
        "device": f"{machine['name']} ({machine['kind']}, {machine['devices']} seen)",
        "compute capability": machine["compute_capability"],
        "TensorFlow sees": ", ".join(machine["seen"]),
        "versions": versions,
        "TensorFlow is built with": built,
        "drivers": drivers,
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "memory": f"{machine['memory_gib']} GiB",
        "system": f"{machine['system']}, Python {machine['python']}",
        "library": f"{machine['library']}, commit {machine['commit']}",
    }
    rows = "".join(f"<dt>{key}</dt><dd>{_esc(value)}</dd>" for key, value in facts.items() if value)
    return f"<dl>{rows}</dl>"
