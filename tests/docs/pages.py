"""Read README.md, docs/*.md and docs/reference/: code blocks, commands, flags and links."""

import dataclasses
import re
import shlex
from pathlib import Path

from tests.process import ROOT

_REFERENCE = ROOT / "docs" / "reference"
# What a reader meets first comes first: later pages use what the commands of README have made.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), _REFERENCE / "README.md"]
# They describe the originals: their commands and flags are those of other programs, not of ours.
SPECIFICATIONS = sorted(set(_REFERENCE.glob("*.md")) - set(PAGES))
LANGUAGES = {"sh", "python", ""}
# Flags of other programs, in commands that are not ours.
_FLAG = re.compile(r"(?<![\w-])--(\w[\w-]*)")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block: where it begins, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order: fenced ones, and indented lines that are commands."""
    found, opened = [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened = (number + 1, line[3:].strip(), [])
            else:
                start, language, lines = opened
                found.append(Block(page, start, language, "\n".join(lines)))
                opened = None
        elif opened is not None:
            opened[2].append(line)
        elif re.match(r"    (ssd_centernet|python|bash) ", line):
            found.append(Block(page, number, "sh", line.strip()))
    assert opened is None, f"{page}: the block at line {opened[0]} is not closed"
    return found


def files(page: Path) -> dict[str, str]:
    """Path -> text of the files that a page shows: blocks that begin with '# PATH' of a file."""
    found = {}
    for block in blocks(page):
        name = re.match(r"# (\S+\.(?:gin|py|yaml))\n", block.text)
        if name and not block.language:
            found[name[1]] = f"{block.text}\n"
    return found


def answers(page: Path) -> dict[str, str]:
    """Wrong argument -> what a page says the command answers to it."""
    found = {}
    for block in blocks(page):
        argument, _, answer = block.text.partition("\n\n")
        if not block.language and argument.startswith("--"):
            found[argument] = answer
    return found


def anchors(page: Path) -> set[str]:
    """What a link can point to inside a page: its headings as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(block: Block) -> list[str]:
    """The commands of a shell block: continued lines joined, comments and empty lines left out."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    stripped = (re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line]


def inline_code(page: Path) -> list[str]:
    """Every `code` in the prose of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def links(page: Path) -> list[tuple[str, str]]:
    """File ('' for the page itself) and anchor of a page's relative links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [t.partition("#")[::2] for t in targets if not re.match(r"[a-z]+:", t)]


def flags_of(code: str) -> list[str]:
    """The names behind -- in a command or in the prose."""
    return _FLAG.findall(code)


def program(command: str) -> str:
    """What a command starts: 'ssd_centernet train', 'bash scripts/demo.sh', 'python -m x'..."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"\w+=.*", word)]
    if words[:1] in (["python"], ["python3"]) and words[1:2] == ["-m"]:
        return " ".join(["python", *words[1:3]])
    return " ".join(words[:2])
