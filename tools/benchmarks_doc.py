"""Write the tables of docs/benchmarks.md that stand between marks, from benchmarks/compare.json.

python -m tools.benchmarks_doc docs/benchmarks.md
"""

import json
import sys
from pathlib import Path

from ssd_centernet.files import write_atomically

BEGIN, END = "<!-- made by tools/benchmarks_doc.py -->", "<!-- end of what is made -->"
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "compare.json"


def tables(results: list[dict]) -> str:
    """Return the tables of results as Markdown.

    Args:
        results: rows as `benchmarks/compare.py` writes them.
    """
    return "\n\n".join([_ratios(results), *_machines(results), _figures(results)])


def document(page: str, results: list[dict]) -> str:
    """Return a page with the tables between its marks made anew.

    Raises:
        ValueError: the page does not have both marks, each once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page must hold {BEGIN!r} and {END!r}, each once.")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{rest.split(END)[1]}"


def _ratios(results: list[dict]) -> str:
    head = "| row | ours / other | wall | processor time | memory | to reach | reached |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for result in results:
        for line in result["ratios"]:
            wall = f"{line['wall']:.2f} ({line['lowest']:.2f} to {line['highest']:.2f})"
            goal = "" if line["goal"] is None else f"{line['goal']:g}"
            goal += " at most" if line["cost"] else ""
            reached = line.get("reached", "")
            if line["memory_goal"] is not None:
                goal = "; ".join(filter(None, [goal, f"memory {line['memory_goal']:g} at most"]))
                reached = "; ".join(filter(None, [reached, f"memory {line['memory_reached']}"]))
            cells = [
                result["title"],
                f"{line['ours']} / {line['other']}",
                wall,
                f"{line['cpu']:.2f}",
                f"{line['memory']:.2f}",
                goal,
                reached,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _machines(results: list[dict]) -> list[str]:
    """Return a sentence for each machine, day and note."""
    said = {}
    for result in results:
        machine = result["machine"]
        units = [
            f"{'with' if machine[key] else 'without'} {name}"
            for key, name in (("avx512", "AVX-512"), ("avx512_bf16", "its BF16"), ("amx", "AMX"))
        ]
        text = (
            f"{result['date']}: {machine['cores']} cores of {machine['processor']}, "
            f"{', '.join(units)}, {machine['memory_gb']} GB"
        )
        text += f"; {machine['note']}" if machine["note"] else ""
        said.setdefault(text, []).append(result["row"])
    return [
        f"{text}." if len(said) == 1 else f"{text}: rows `{'`, `'.join(rows)}`."
        for text, rows in said.items()
    ]


def _figures(results: list[dict]) -> str:
    lines = [
        "| row | contestant | images/s | range | processor ms per image | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    versions: dict[str, str] = {}
    for result in results:
        for name, figures in result["contestants"].items():
            versions |= figures["versions"]
            cells = [
                f"`{result['row']}`",
                name,
                f"{figures['images_per_second']:.4g}",
                f"{figures['lowest']:.4g} to {figures['highest']:.4g}",
                f"{figures['cpu_ms_per_image']:.4g}",
                f"{figures['peak_mb']:.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        for reason in result["not_measured"]:
            lines.append(f"| `{result['row']}` | not measured: {reason} | | | | |")
    used = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return "\n".join(lines) + f"\n\nMeasured with {used}."


def main(path: str) -> None:
    """Write the page."""
    page = Path(path).read_text(encoding="utf-8")
    write_atomically(path, document(page, json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(*sys.argv[1:])
