"""Parts of report pages: frame, style sheet, figures and tables.

A page is one file that needs no other file and no internet; it is readable without its script.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np


def page(title: str, *, head: str, opening: str, sections: Mapping[str, str]) -> str:
    """Return a page with a heading, links and sections.

    Args:
        title: title at the top.
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
    files = resources.files(__package__)
    style, script = ((files / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{style}</style></head>\n<body><main>"
        f"<header><h1>{title}</h1>{head}"
        f'<nav aria-label="sections">{links}</nav></header>'
        f"{opening}{body}</main>\n<script>\n{script}</script></body></html>\n"
    )


def sparkline(values: np.ndarray, description: str) -> str:
    """Draw a curve of values 0..1 as small as a word.

    Args:
        values: [N]; nothing is drawn for NaN.
        description: text for readers who cannot see it.

    Returns:
        An SVG element, or empty text if there is no value.
    """
    if not np.isfinite(values).all():
        return ""
    taken = values[::4]
    points = " ".join(
        f"{64 * i / (len(taken) - 1):.0f},{1 + 18 * (1 - value):.1f}"
        for i, value in enumerate(taken)
    )
    label = html.escape(description)
    return (
        f'<svg class="spark" viewBox="0 0 64 20" role="img" aria-label="{label}">'
        f'<polygon points="0,20 {points} 64,20"/><polyline points="{points}"/></svg>'
    )


def figure(title: str, drawing: str, caption: str, keys: Sequence[tuple[str, str]] = ()) -> str:
    """Return a figure with its title, the keys of its colours, the drawing and a caption."""
    legend = "".join(f'<li><i class="{style}"></i>{html.escape(text)}</li>' for style, text in keys)
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    return (
        f"<figure><h3>{html.escape(title)}</h3>{legend}{drawing}"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def table(style: str, name: str, caption: str, head: str, body: str) -> str:
    """Return a table with a caption; it scrolls if it is too wide.

    Args:
        style: class of the table.
        name: name for screen readers.
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
    """Write a share 0..1 in per cent, or a dash if there is none."""
    return f"{100 * value:.1f}%" if math.isfinite(value) else "–"


def number(value: float) -> str:
    """Write a metric, or a dash if there are no objects to measure it on."""
    return f"{value:.3f}" if math.isfinite(value) and value >= 0 else "–"
