"""Write docs/api.md from the docstrings, without importing what it describes.

python -m tools.api_doc docs/api.md
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import ssd_centernet
from ssd_centernet.cli.main import start_quietly
from ssd_centernet.files import write_atomically

_PACKAGE = Path(ssd_centernet.__file__).parent
_HEAD = """# Reference

Made by `python -m tools.api_doc docs/api.md` from the docstrings; a test holds it to
the code. It lists what is meant to be called from Python or named in a recipe ([gin.md](gin.md)); a
name marked *recipe* is known to gin by it. What a function raises stands in its docstring.

Boxes are float32 `[ymin, xmin, ymax, xmax]`. B is a batch, C the number of classes without
background, A of anchors, M of (padded) objects, D of detections. [architecture.md](architecture.md)
has the contracts.
"""
# Title -> patterns of modules, in their order. What does not exist is left out.
_SECTIONS = {
    "Detectors": (
        "models/detector.py",
        "models/fitting.py",
        "models/ssd.py",
        "models/centernet.py",
    ),
    "Building, loading, exporting": (
        "api.py",
        "fit_data.py",
        "build*.py",
        "export.py",
        "export/export.py",
    ),
    "Backbones": ("models/backbones/*.py",),
    "Anchors, necks, heads, criteria, decoders": ("layers/*.py",),
    "Tensor functions": ("ops/*.py",),
    "Data": (
        "labels.py",
        "data/convert.py",
        "data/convert_formats.py",
        "data/directory.py",
        "data/pipeline.py",
        "data/static.py",
        "data/fake.py",
        "data/synthetic.py",
    ),
    "Augmentation": ("data/augment/*.py",),
    "Training": (
        "recipe.py",
        "recipe_settings.py",
        "train.py",
        "training/length.py",
        "training/trainer.py",
        "training/schedules.py",
        "training/warmup_cosine.py",
        "training/optimizers.py",
        "training/loss_scale.py",
        "runs/opened.py",
        "runs/evaluation.py",
        "weights/restoration.py",
    ),
    "Evaluation": (
        "evaluation/coco.py",
        "evaluation/ground_truth.py",
        "evaluation/result.py",
        "evaluation/diagnosis.py",
        "evaluation/analysis.py",
        "evaluation/report.py",
    ),
    "Pictures and charts": ("drawing/visualize.py", "drawing/chart.py"),
    "Recipes and devices": (
        "config/parsing.py",
        "config/finding.py",
        "config/usage.py",
        "config/expectations.py",
        "runtime/device.py",
        "runtime/precision.py",
    ),
}
_TITLES = ("Args", "Attributes", "Returns", "Yields", "Raises", "Source", "Example", "Examples")
_SHOWN = ("Args", "Attributes", "Returns", "Yields", "Source")
_WIDTH = 100


def document() -> str:
    """Return docs/api.md."""
    parts, titles = [], []
    seen: set[Path] = set()
    for title, patterns in _SECTIONS.items():
        paths = [p for pattern in patterns for p in sorted(_PACKAGE.glob(pattern))]
        modules = [_module(path) for path in paths if path not in seen and _is_public(path)]
        seen.update(paths)
        if any(modules):
            titles.append(title)
            parts += [f"## {title}\n", *filter(None, modules)]
    links = [f"* [{title}](#{_anchor(title)})" for title in titles]
    return "\n".join([_HEAD, *links, "", _public_names(), *parts])


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _is_public(path: Path) -> bool:
    return path.name == "__init__.py" or not path.name.startswith("_")


def _public_names() -> str:
    rows = [
        f"| `{name}` | `{ssd_centernet._PUBLIC[name]}` |" for name in sorted(ssd_centernet._PUBLIC)
    ]
    return "\n".join(["## `import ssd_centernet`\n", "| name | from |", "| --- | --- |", *rows, ""])


def _module(path: Path) -> str:
    """Write a module's entries under its first sentence; nothing where it has no public name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    entries = [_entry(node) for node in _public(tree)]
    if not entries:
        return ""
    inside = path.relative_to(_PACKAGE.parent).with_suffix("")
    name = ".".join(part for part in inside.parts if part != "__init__")
    first = (ast.get_docstring(tree) or "").split("\n\n")[0]
    return "\n".join([f"### `{name}`\n", f"{_flowed(first)}\n", *entries])


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.AST]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def _entry(node: ast.AST) -> str:
    about = _sections(ast.get_docstring(node))
    function = node
    if isinstance(node, ast.ClassDef):
        function = _method(node, "__init__")
        if function is not None:
            constructor = _sections(ast.get_docstring(function))
            about = {**constructor, **about} | {"": about.get("", "")}
    lines = [f"**`{node.name}`**{_marks(node)}\n"]
    if function is not None:
        lines += ["```", _signature(node.name, function), "```\n"]
    lines.append(f"{_paragraphs(about.get('', ''))}\n")
    for title in _SHOWN:
        if about.get(title):
            lines.append(_list(title, about[title]))
    if isinstance(node, ast.ClassDef):
        lines.append(_methods(node))
    return "\n".join(filter(None, lines))


def _marks(node: ast.AST) -> str:
    words = [ast.unparse(one) for one in node.decorator_list]
    bases = [ast.unparse(base) for base in getattr(node, "bases", ())]
    marks = [f"a {base}" for base in bases if not base.startswith(("Generic", "Protocol"))]
    if any(word.startswith("gin.") for word in words):
        marks.append("*recipe*")
    if any("dataclass" in word for word in words):
        marks.append("dataclass")
    return f" ({', '.join(marks)})" if marks else ""


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def _signature(name: str, function: ast.FunctionDef) -> str:
    """Its call with defaults; one argument a line where it is long."""
    arguments = function.args
    for group in (arguments.posonlyargs, arguments.args):
        group[:] = [one for one in group if one.arg not in ("self", "cls")]
    back = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    back = "" if name == function.name and back == " -> None" else back
    if function.name == "__init__":
        back = ""
    texts = _arguments(arguments)
    whole = f"{name}({', '.join(texts)}){back}"
    if len(whole) <= _WIDTH:
        return whole
    lines = [""]
    for text in texts:
        if lines[-1] and len(lines[-1]) + len(text) + 7 > _WIDTH:
            lines.append("")
        lines[-1] += f" {text}," if lines[-1] else f"{text},"
    return "\n".join([f"{name}(", *(f"    {line}" for line in lines), f"){back}"])


def _arguments(arguments: ast.arguments) -> list[str]:
    """Each argument as it stands in the source."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    texts = [_argument(*pair) for pair in zip(positional, defaults, strict=True)]
    if arguments.vararg:
        texts.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    texts += [_argument(*pair) for pair in pairs]
    return texts + ([f"**{_argument(arguments.kwarg, None)}"] if arguments.kwarg else [])


def _argument(one: ast.arg, default: ast.expr | None) -> str:
    text = f"{one.arg}: {ast.unparse(one.annotation)}" if one.annotation else one.arg
    if default is None:
        return text
    return (
        f"{text} = {ast.unparse(default)}" if one.annotation else f"{text}={ast.unparse(default)}"
    )


def _sections(docstring: str | None) -> dict[str, str]:
    """Title -> text; what stands before the first title is under ''."""
    found, title, before = {"": []}, "", ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        head = re.fullmatch(rf"({'|'.join(_TITLES)}):\s*(.*)", line)
        if head:
            title = head[1]
            found[title] = [head[2]] if head[2] else []
        elif title and line and not before and not line.startswith(" "):
            found[""] += ["", line]
            title = ""
        else:
            found[title].append(line)
        before = line
    return {key: textwrap.dedent("\n".join(lines)).strip() for key, lines in found.items()}


def _paragraphs(text: str) -> str:
    return "\n\n".join(_flowed(part) for part in text.split("\n\n"))


def _flowed(text: str) -> str:
    return "\n".join(textwrap.wrap(" ".join(text.split()), _WIDTH, break_long_words=False))


def _list(title: str, text: str) -> str:
    if title in ("Returns", "Yields"):
        return _flowed(f"{title}: {text}") + "\n"
    if title == "Source":
        linked = re.sub(r"docs/(reference/(\w+)\.md)", r"[\2](\1)", "; ".join(text.splitlines()))
        return _flowed(f"Source: {linked}") + "\n"
    items: list[str] = []
    for line in text.splitlines():
        # An argument begins at the left edge; its further lines are indented.
        if re.match(r"\*{0,2}\w[\w, *]*: ", line + " "):
            name, _, rest = line.partition(":")
            items.append(f"`{name}`: {rest.strip()}")
        elif items and line.strip():
            items[-1] += f" {line.strip()}"
    wrapped = [
        textwrap.fill(item, _WIDTH, initial_indent="* ", subsequent_indent="  ", **_WHOLE_WORDS)
        for item in items
        if not item.endswith(_OF_KERAS)
    ]
    return "\n".join([*wrapped, ""]) if wrapped else ""


# What every layer and model has.
_OF_KERAS = (": name of the layer.", ": name of the model.", ": passed to the Keras layer.")
_KERAS_METHODS = ("get_config", "from_config", "build", "compute_output_shape")
_WHOLE_WORDS = {"break_long_words": False, "break_on_hyphens": False}


def _methods(node: ast.ClassDef) -> str:
    rows = []
    for method in _public(node):
        first = (ast.get_docstring(method) or "").split("\n\n")[0]
        if isinstance(method, ast.FunctionDef) and first and method.name not in _KERAS_METHODS:
            arguments = method.args
            names = [one.arg for one in arguments.args if one.arg not in ("self", "cls")]
            names += [one.arg for one in arguments.kwonlyargs]
            is_value = any("property" in ast.unparse(one) for one in method.decorator_list)
            call = method.name if is_value else f"{method.name}({', '.join(names)})"
            rows.append(f"| `{call}` | {' '.join(first.split())} |")
    return "\n".join(["| method | |", "| --- | --- |", *rows, ""]) if rows else ""


if __name__ == "__main__":
    start_quietly()
    if len(sys.argv) > 1:
        print(write_atomically(sys.argv[1], document()))
    else:
        print(document(), end="")
