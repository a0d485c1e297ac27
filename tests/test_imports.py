"""The import rules, the size limits and the style of the code."""

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.process import ROOT, python, run

PACKAGE = ROOT / "ssd_centernet"
FILES = sorted(PACKAGE.rglob("*.py"))
_FOLDERS = ("tests", "benchmarks", "scripts", "tools")
ALL_FILES = [
    *FILES,
    *(
        p
        for d in ("tests", "benchmarks", "scripts", "tools")
        for p in sorted((ROOT / d).rglob("*.py"))
    ),
    ROOT / "setup.py",
]

# Rooms of the package from the ground up; each may import those above it in this list that it
# names, lazy imports included, and none below.
_MODELS = {"ops", "labels", "layers", "models", "_keras", "patterns"}
_RUN = _MODELS | {
    "plain_text",
    "text_table",
    "data",
    "data_service",
    "files",
    "runtime",
    "config",
    "building",
}
_RUN |= {"checkpoint_files", "run_directory"}
MAY_IMPORT = {
    "_older_keras": set(),
    "_keras": {"_older_keras"},
    "files": set(),
    "memory": set(),
    "patterns": set(),
    "plain_text": set(),
    "text_table": {"plain_text"},
    "native": {"files"},
    "ops": {"native"},
    "labels": {"files", "plain_text"},
    "runtime": {"_keras"},
    "drawing": {"files", "labels", "ops"},
    "layers": {"ops", "labels", "_keras"},
    "data": {"files", "labels", "memory", "native", "ops", "plain_text"},
    "data_service": {"data", "native", "plain_text"},
    # Of the data only what decodes image files, which `detect` takes; see test_layering.
    "models": _MODELS | {"data", "files"},
    "checkpoint_files": {"files"},
    "run_directory": {"checkpoint_files", "data", "labels"},
    # Of a run only the name of its settings, which are read as data.
    "config": {"files", "run_directory"},
    "building": _MODELS | {"memory", "runtime"},
    "export": _RUN,
    "weights": _MODELS | {"checkpoint_files", "files", "run_directory"},
    "evaluation": _RUN | {"drawing"},
    "preview": _RUN | {"drawing"},
    "predict": _RUN | {"drawing", "evaluation"},
    "serve": _RUN | {"drawing", "export", "predict"},
    "training": _RUN | {"drawing", "evaluation", "memory", "preview", "weights"},
    "recipe_settings": _RUN | {"training"},
    "recipe": _RUN | {"evaluation", "recipe_settings", "training"},
    "runs": _RUN
    | {"memory", "drawing", "evaluation", "export", "predict", "recipe", "training", "weights"},
    "train": _RUN | {"evaluation", "preview", "recipe", "runs", "training", "weights"},
    "benchmark": _RUN | {"evaluation", "export", "memory", "recipe", "runs", "training"},
    "fit_data": _RUN | {"recipe"},
    "api": _RUN | {"drawing", "evaluation", "fit_data", "predict", "recipe", "runs", "weights"},
    "cli": {"*"},
    "__init__": set(),
    "__main__": {"cli"},
}

# Package that may be missing or heavy -> the only place that may import it, lazily.
ONE_PLACE = {
    "pycocotools": r"evaluation/backends\.py",
    "faster_coco_eval": r"evaluation/backends\.py",
    "hotcoco": r"evaluation/backends\.py",
    "horovod": r"runtime/horovod\.py",
    "matplotlib": r"drawing/chart\.py",
    "tensorflow_datasets": r"data/readers/tfds\.py",
    "cv2": r"predict/video_files\.py",
    "official": r"models/backbones/model_garden\.py",
    "tf2onnx": r"export/portable\.py",
    "onnxruntime": r"export/runtimes\.py",
    "ai_edge_litert": r"export/(runtimes|detect)\.py",
    "openvino": r"export/runtimes\.py",
    "nncf": r"export/runtimes\.py",
    "prometheus_client": r"serve/metrics\.py",
    "python_multipart": r"serve/forms\.py",
    "starlette": r"serve/app\.py",
    "uvicorn": r"serve/running\.py",
    "habana_frameworks": r"runtime/vendors\.py",
    "npu_device": r"runtime/ascend\.py",
}

# Words of anchors, heatmaps, their targets and the raw outputs: no room but `ops` with its compiled
# form in `native`, `layers` and `models` speaks of them.
INSIDE_A_DETECTOR = set(
    "anchors anchor_boxes boxes_per_cell feature_sizes matched_threshold match_in_pixels "
    "scale_factors num_matched heatmap output_size cell_weights class_logits box_codes "
    "class_layers box_layers criterion".split()
)
# What other rooms may import of these three: nothing that tells one kind of detector from another.
OUTSIDE_A_DETECTOR = [
    ["models", "detector"],
    ["models", "given_images"],
    ["models", "halves"],
    ["models", "matches"],
    ["models", "moving_statistics"],
    ["models", "numpy_decoders"],
    ["models", "quantized"],
    ["models", "rematerialized"],
    ["models", "saved"],
    ["models", "siblings"],
    ["models", "weight_average"],
    ["models", "weight_decay"],
    ["layers", "normalization"],
    ["ops", "boxes"],
    ["ops", "color"],
    ["ops", "crops"],
    ["ops", "image"],
    ["ops", "pasting"],
    ["ops", "photometric"],
    ["ops", "rendering"],
    ["ops", "standard_nms"],
    ["ops", "tile_merging"],
    ["ops", "tiles"],
]
# Published checkpoints name the layers of backbones, necks and heads; these modules translate.
KNOW_LAYERS = (
    "weights/centernet_names.py",
    "weights/efficientnet_names.py",
    "weights/keras_names.py",
    "weights/ssd_names.py",
    "weights/torch_names.py",
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imported(tree: ast.AST) -> list[tuple[str, int, bool]]:
    """Return (module, line, at the top level of the file) of every import."""
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # What importlib is given: 'pycocotools.coco' or 'pycocotools.coco:COCO'.
            dotted = re.fullmatch(r"(\w+)(\.\w+)+(:\w+)?", node.value)
            names = [node.value] if dotted and dotted[1] in ONE_PLACE else []
        else:
            continue
        found += [(name, node.lineno, id(node) in top) for name in names]
    return found


def test_no_room_imports_one_that_stands_above_it():
    rooms = list(MAY_IMPORT)
    for number, (room, allowed) in enumerate(MAY_IMPORT.items()):
        assert allowed <= {"*", *rooms[: number + 1]}, room


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_layering(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    allowed = MAY_IMPORT[part] | {part, "__version__"}
    for name, line, _ in _imported(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("ssd_centernet."):
            other = name.split(".")[1]
            assert "*" in allowed or other in allowed, f"{_name(path)}:{line} imports {name}"
            if (part, other) == ("models", "data"):
                assert name.startswith("ssd_centernet.data.images."), f"{_name(path)}:{line}"


def _spoken(tree: ast.AST) -> list[tuple[str, int]]:
    """Return (word, line) of attributes, arguments, keywords and whole strings."""
    fields = {ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg", ast.Constant: "value"}
    return [
        (getattr(node, fields[type(node)]), node.lineno)
        for node in ast.walk(tree)
        if type(node) in fields
    ]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_else_knows_what_an_anchor_is(path):
    """What is inside a detector is asked of it, by the methods of `Detector`."""
    where = path.relative_to(PACKAGE).as_posix()
    if where.startswith(("native/", "ops/", "layers/", "models/")):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for word, line in _spoken(tree):
        assert word not in INSIDE_A_DETECTOR, f"{where}:{line} speaks of {word}"
    if where in KNOW_LAYERS:
        return
    for name, line, _ in _imported(tree):
        if re.match(r"ssd_centernet\.(layers|models|ops)\.", name):
            assert name.split(".")[1:3] in OUTSIDE_A_DETECTOR, f"{where}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_optional_packages_are_imported_in_one_place_and_lazily(path):
    for name, line, at_top in _imported(ast.parse(path.read_text(encoding="utf-8"))):
        root = name.split(".")[0]
        if root in ONE_PLACE:
            where = path.relative_to(PACKAGE).as_posix()
            assert re.fullmatch(ONE_PLACE[root], where), f"{_name(path)}:{line} imports {name}"
            assert not at_top, f"{_name(path)}:{line}: import {name} where it is used"


def test_nothing_imports_orbit():
    users = {
        _name(path)
        for path in FILES
        for name, _, _ in _imported(ast.parse(path.read_text(encoding="utf-8")))
        if name.split(".")[0] == "orbit"
    }
    assert not users, f"the train loop is our own; {users} ask for a package that pins TensorFlow"


@pytest.mark.parametrize("path", ALL_FILES, ids=_name)
def test_keras_comes_from_one_module(path):
    if _name(path) in ("ssd_centernet/_keras.py", "tests/test_imports.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr == "keras":
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            assert owner not in ("tf", "tensorflow"), f"{_name(path)}:{node.lineno}"
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            bad = re.match(r"(keras|tf_keras)(\.|$)|tensorflow(\.python)?\.keras", module)
            # The tests of _keras.py and scripts that measure peers may name them.
            assert not bad or not path.is_relative_to(PACKAGE), f"{_name(path)}:{node.lineno}"


@pytest.mark.parametrize("path", ALL_FILES, ids=_name)
def test_what_gin_has_no_public_name_for_is_used_in_one_module(path):
    if _name(path) == "ssd_centernet/config/gin_state.py":
        return
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            owner = ast.unparse(node.value)
            assert not re.fullmatch(r"(.*\.)?_?gin(\.\w+)?", owner), f"{_name(path)}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gin"):
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            assert not private, f"{_name(path)}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_the_files_of_a_run_are_named_in_one_module(path):
    from ssd_centernet import run_directory

    if path.samefile(run_directory.__file__):
        return
    names = {value for key, value in vars(run_directory).items() if key.isupper()}
    # Of other folders too.
    names -= {run_directory.LABEL_MAP_NAME, ".lock", run_directory.CONVERTED_DATA_DIR}
    files = [name for name in names if isinstance(name, str) and "." in name]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            text = getattr(node.right, "value", None)
            text = text if text in names else None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Also what follows a folder in an f-string, and patterns of checkpoints.
            told = [name for name in files if node.value in (name, f"/{name}")]
            text = node.value if told or re.search(r"ckpt-[*{]", node.value) else None
        assert text is None, f"{_name(path)}:{node.lineno}: take {text!r} from run_directory.py"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_library_sets_no_environment_variable(path):
    # A vendor's module reads its settings from the environment when it is loaded; channels of gRPC,
    # which TensorFlow makes, can be told nowhere else to leave a proxy alone.
    settings = ("ssd_centernet/runtime/vendors.py", "ssd_centernet/data_service/proxies.py")
    # TensorFlow and Gloo are told there alone where the processes of mpirun meet.
    settings += ("ssd_centernet/runtime/mpi.py", "ssd_centernet/runtime/slurm.py")
    if path.parent.name == "cli" or _name(path) in settings:
        return
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"os\.environ(\[[^]]*\]\s*=[^=]|\.(setdefault|update|pop))", source)
    assert "putenv" not in source


@pytest.mark.parametrize("path", ALL_FILES, ids=_name)
def test_files_and_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = _body_length(node)
            assert length <= 80, f"{_name(path)}:{node.lineno} {node.name} has {length} lines"


def _body_length(node: ast.FunctionDef) -> int:
    """Count the lines of a function without its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(arguments):
    pytest.importorskip("ruff", reason="ruff is not installed")
    run(sys.executable, "-m", "ruff", *arguments, ".")


_BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
"""


def _run_blocked(names: set[str], code: str) -> str:
    return python(_BLOCKED.format(names=names) + code).stdout


def test_import_needs_no_heavy_package():
    blocked = {"tensorflow", "tf_keras", "keras", "gin", "PIL", *ONE_PLACE}
    code = "import ssd_centernet; print(ssd_centernet.__version__, len(dir(ssd_centernet)))"
    assert _run_blocked(blocked, code).startswith("0.")


def test_public_names_need_no_optional_package():
    code = "import ssd_centernet\nfor name in dir(ssd_centernet): getattr(ssd_centernet, name)"
    _run_blocked(set(ONE_PLACE), f"{code}\nimport ssd_centernet.config as c; c.register_all()")


def test_unknown_public_name_is_an_attribute_error():
    import ssd_centernet

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ssd_centernet.no_such_name


def test_dir_has_the_public_names_and_help_a_line_for_each():
    import pydoc

    import ssd_centernet

    names = dir(ssd_centernet)
    assert {"build", "batches", "SSD", "__version__"} <= set(names)
    assert not {"importlib", "Any", "sys", "_PUBLIC"} & set(names)
    text = pydoc.plain(pydoc.render_doc(ssd_centernet))
    # With the classes and all that Keras gives them it has 35,000 lines.
    assert len(text.splitlines()) < 130
    for name in set(names) - {"__version__"}:
        lines = [
            line for line in text.splitlines() if re.match(rf"    +(.*, )?{name}(,| |$)", line)
        ]
        assert lines, f"help(ssd_centernet) does not say what {name} is"


def test_minors_that_differ_are_refused(monkeypatch):
    from ssd_centernet import _keras

    with pytest.raises(ImportError, match=r'tf_keras 2\.\d+.*pip install "tf_keras~=2\.99\.0"'):
        _keras.select_keras("2.99.1")
    with pytest.raises(ImportError, match="2.9.3 is installed; ssd_centernet needs 2.10"):
        _keras.select_keras("2.9.3")
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(ImportError, match=r'Install it: pip install "tf_keras~=2\.20\.0"'):
        _keras.select_keras("2.20.0")
    assert _keras.minor_version("2.16.0-rc1") == (2, 16)
