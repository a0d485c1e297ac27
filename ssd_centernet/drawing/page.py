"""What pages of reports share: their frame, style sheet, figures and tables.

A page is one file that needs no other and no network; it can be read without its script.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2127; --faint: #5a636e;
  --rule: #dfe3e8; --panel: #f5f6f8; --blue: #1f6fc4; --teal: #0a7d66; --orange: #b9520a;
  --heat: 31 111 196; --warn: #fdf3e1; --run0: #1f6fc4; --run1: #c4590f; --run2: #0a7d66;
  --run3: #8a4fbf; --run4: #c2334a; --run5: #77720a; --run6: #0b86a6; --run7: #b8468f; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e9ed; --faint: #a0a9b4;
  --rule: #333a43; --panel: #1e2329; --blue: #6cb0f5; --teal: #43c7a6; --orange: #f19a55;
  --heat: 60 112 172; --warn: #3a2f1a; --run0: #6cb0f5; --run1: #f19a55; --run2: #43c7a6;
  --run3: #c39bf0; --run4: #f27d8a; --run5: #cbc651; --run6: #55c8e8; --run7: #f08cc8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 44px 0 6px; padding-top: 10px;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 6px; }
p { margin: 4px 0 12px; max-width: 76ch; }
.faint { color: var(--faint); }
nav { margin: 10px 0 0; display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .92rem; }
a { color: var(--blue); }
.hint { background: var(--warn); border-radius: 8px; padding: 10px 14px; max-width: none; }
.cards { display: grid; grid-template-columns: repeat(6, 1fr); gap: 10px; margin: 22px 0 8px;
  padding: 0; list-style: none; }
.cards li { background: var(--panel); border-radius: 8px; padding: 9px 12px; }
.cards b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.cards .main { background: var(--blue); color: var(--paper); }
.cards .main small { color: inherit; }
.cards small { color: var(--faint); font-size: .8rem; line-height: 1.3; display: block; }
.two { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 22px 32px; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .9rem; color: var(--faint); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .88rem; margin: 0 0 4px;
  padding: 0; list-style: none; }
.legend i { display: inline-block; width: 18px; height: 0; border-top: 3px solid;
  margin: 0 6px 4px 0; }
.blue { color: var(--blue); } .teal { color: var(--teal); } .orange { color: var(--orange); }
.run0 { color: var(--run0); } .run1 { color: var(--run1); } .run2 { color: var(--run2); }
.run3 { color: var(--run3); } .run4 { color: var(--run4); } .run5 { color: var(--run5); }
.run6 { color: var(--run6); } .run7 { color: var(--run7); }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px;
  background: currentColor; }
.legend.runs { position: sticky; top: 0; background: var(--paper); padding: 6px 0; z-index: 1; }
.legend .dashed { border-top-style: dashed; } .line.dashed { stroke-dasharray: 7 4; }
.line.thin { stroke-width: 1.2; opacity: .35; }
table.runs td, table.runs tbody th { white-space: nowrap; }
.stack > * + * { margin-top: 26px; }
code { font-size: .86em; overflow-wrap: anywhere; }
.settings td, .settings th { vertical-align: top; }
.chart { width: 100%; height: auto; display: block; }
.chart text { font-size: 13px; fill: var(--faint); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); fill: none; } .axis { stroke: var(--faint); fill: none; }
.line { fill: none; stroke: currentColor; stroke-width: 2.4; stroke-linejoin: round; }
.ideal { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 5 5; }
circle, rect { fill: currentColor; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px 5px 0; text-align: right; border-bottom: 1px solid var(--rule);
  vertical-align: middle; }
.caption { color: var(--faint); font-size: .9rem; max-width: 82ch; margin: 0 0 6px; }
th { font-weight: 600; }
th:first-child, .word { text-align: left; }
tbody th { font-weight: 500; }
.wide { width: 100%; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25B4"; }
th[aria-sort=descending] button::after { content: " \\25BE"; }
.meter { display: inline-block; width: 110px; height: 9px; background: var(--panel);
  border-radius: 5px; overflow: hidden; margin-right: 10px; }
.meter i { display: block; height: 100%; background: var(--blue); }
.spark { width: 64px; height: 20px; display: inline-block; vertical-align: middle; }
.spark polyline { fill: none; stroke: var(--blue); stroke-width: 1.5; }
.spark polygon { fill: var(--blue); opacity: .14; }
.beside { display: flex; flex-wrap: wrap; gap: 24px 48px; align-items: flex-start; }
.beside > * { max-width: 100%; } .beside .caption { max-width: 60ch; }
.confusion th, .confusion td { border: 1px solid var(--paper); padding: 4px 6px;
  text-align: center; min-width: 40px; height: 32px; }
.confusion tbody th { text-align: right; white-space: nowrap; padding-right: 10px;
  position: sticky; left: 0; background: var(--paper); max-width: 150px; overflow: hidden;
  text-overflow: ellipsis; }
.confusion thead th { vertical-align: bottom; text-align: center; }
.confusion thead th span { writing-mode: vertical-rl; transform: rotate(180deg);
  max-height: 150px; display: inline-block; white-space: nowrap; font-weight: 500; overflow: hidden;
  text-overflow: ellipsis; }
.confusion td { background: rgb(var(--heat) / calc(var(--share) * .8)); }
.confusion .same { outline: 1.5px solid var(--faint); outline-offset: -2px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(430px, 100%), 1fr));
  gap: 26px 22px; margin-top: 12px; }
.gallery svg { width: 100%; max-height: 460px; margin-bottom: 6px; display: block;
  background: var(--panel); border-radius: 6px; }
.gallery rect { fill: none; stroke: currentColor; stroke-width: 2.5; vector-effect:
  non-scaling-stroke; }
.gallery .rim rect { stroke: #000a; stroke-width: 4.5; }
.gallery .found { color: #37d67a; } .gallery .wrong { color: #ff9d3c; }
.gallery .lost { color: #ff5fb0; } .gallery .lost rect { stroke-dasharray: 7 5; }
.gallery text { font-size: 13px; font-weight: 600; fill: currentColor; stroke: #000c;
  stroke-width: 3px; paint-order: stroke; stroke-linejoin: round; }
.key i { width: 16px; height: 12px; border: 3px solid; margin-bottom: -1px; }
.key .found i { border-color: #1fa55a; } .key .wrong i { border-color: #e07c12; }
.key .lost i { border-color: #e0458f; border-style: dashed; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px; margin: 0;
  font-size: .95rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: 8px; padding: 12px; overflow-x: auto;
  font-size: .84rem; line-height: 1.4; }
summary { cursor: pointer; margin-top: 14px; }
@media (max-width: 760px) { .two { grid-template-columns: minmax(0, 1fr); }
  .cards { grid-template-columns: repeat(3, 1fr); } .cards li { padding: 8px 9px; }
  .cards b { font-size: 1.2rem; } h1 { font-size: 1.35rem; }
  .narrow-off, .meter { display: none; } dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 8px; } .wide th, .wide td { padding-right: 8px; }
}
@media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --faint: #444;
  --rule: #ccc; --panel: #f2f2f2; --blue: #1f6fc4; --teal: #0a7d66; --orange: #b9520a;
  --heat: 31 111 196; --warn: #fdf3e1; --run0: #1f6fc4; --run1: #c4590f; --run2: #0a7d66;
  --run3: #8a4fbf; --run4: #c2334a; --run5: #77720a; --run6: #0b86a6; --run7: #b8468f; }
  .legend.runs { position: static; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } nav { display: none; }
  body { font-size: 12px; } figure, tr, .cards { break-inside: avoid; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } main { padding: 0; } }
"""

# Sorts a table by the column whose heading is pressed; numbers by what data-v says.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.dataset.fixed !== undefined) return;
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const body = table.tBodies[0];
      const sorted = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b), n = Number(x) - Number(y);
        return Number.isNaN(n) ? x.localeCompare(y) : n;
      });
      body.append(...(up ? sorted : sorted.reverse()));
    };
  });
}
"""


def page(title: str, *, head: str, opening: str, sections: Mapping[str, str]) -> str:
    """Return a page of sections below a heading with links to them.

    Args:
        title: at the top.
        head: HTML below it: counts, warnings.
        opening: HTML between the links and the first section.
        sections: heading -> HTML.

    Returns:
        The page, HTML with its style and script inside.
    """
    anchors = {name: re.sub(r"\W+", "-", name.lower()) for name in sections}
    links = "".join(f'<a href="#{anchor}">{name}</a>' for name, anchor in anchors.items())
    body = "".join(
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{name}</h2>{sections[name]}'
        "</section>"
        for name, anchor in anchors.items()
    )
    title = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main>"
        f"<header><h1>{title}</h1>{head}"
        f'<nav aria-label="sections">{links}</nav></header>'
        f"{opening}{body}</main>\n<script>{SCRIPT}</script></body></html>\n"
    )


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def figure(title: str, drawing: str, caption: str, keys: Sequence[tuple[str, str]] = ()) -> str:
    """Return a figure with its title, the keys of its colours, the drawing and a caption."""
    legend = "".join(f'<li><i class="{style}"></i>{html.escape(text)}</li>' for style, text in keys)
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    return (
        f"<figure><h3>{html.escape(title)}</h3>{legend}{drawing}"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def table(style: str, name: str, caption: str, head: str, body: str) -> str:
    """Return a table that scrolls by itself where it is too wide, below its caption.

    Args:
        style: class of the table.
        name: what it is called by those who hear the page.
        caption: text above it.
        head: cells of its heading.
        body: its rows.
    """
    return (
        f'<div><p class="caption">{caption}</p>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}">'
        f'<table class="{style}" aria-label="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def percent(value: float) -> str:
    """Write a share of one as per cent, a dash where there is none."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else "–"


def number(value: float) -> str:
    """Write a metric, a dash where there is no object to measure it on."""
    return f"{value:.3f}" if math.isfinite(value) and value >= 0 else "–"
