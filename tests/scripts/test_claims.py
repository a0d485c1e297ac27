"""claims.md: every promise of the originals that once was open has a test, or words of a page."""

import ast
import functools
import re

import pytest

from tests.process import ROOT

ROW = re.compile(r"\| (?P<where>[^|]+) \| (?P<what>[^|]+) \| (?P<held>[^|]+) \|")
PAGE = (ROOT / "tests" / "scripts" / "claims.md").read_text(encoding="utf-8")


def sections():
    """Title -> rows of (where, what, held by)."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        title, *lines = section.splitlines()
        rows = [line for line in lines if line.startswith("|")][2:]
        found[title] = [ROW.fullmatch(row).groups() for row in rows]
    return found


@functools.cache
def functions_of(path):
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@functools.cache
def words_of(page):
    """The text of a page; what stands between the cells of a table is a slash."""
    text = " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())
    return text.replace(" | ", " / ")


def test_no_claim_is_lost():
    counts = {title: len(rows) for title, rows in sections().items()}
    readmes = [count for title, count in counts.items() if title.startswith("Readme of ")]
    assert sorted(readmes) == [14, 15, 20, 25]
    assert (counts["Programs"], counts["Capabilities"], counts["Devices"]) == (35, 21, 16)
    everything = [(title, *row) for title, rows in sections().items() for row in rows]
    assert len({row[:3] for row in everything}) == len(everything)


@pytest.mark.parametrize("title", sections())
def test_what_holds_a_claim_is_there(title):
    for where, what, held in sections()[title]:
        if "::" in held:
            path, _, name = held.partition("::")
            assert name.startswith("test_") and name in functions_of(path), (where, what, held)
        else:
            page, _, words = held.partition(": ")
            assert len(words) > 10 and words in words_of(page), (where, what, held)
