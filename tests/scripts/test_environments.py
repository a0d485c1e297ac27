"""Environments for four TensorFlow versions: what the scripts choose, and what they refuse."""

import re
import shutil
import sys

import pytest

from tests.process import ROOT, environment, run


def bash(script, *arguments, **variables):
    env = environment(**variables)
    return run("bash", script, *arguments, env=env, limit=60, status=None)


def listed(name):
    source = (ROOT / "scripts" / "test.sh").read_text(encoding="utf-8")
    rows = re.search(rf"^{name}=\((.*?)^\)", source, re.MULTILINE | re.DOTALL)[1]
    return [row.strip().strip('"') for row in rows.splitlines() if row.strip()]


CORE, OLDEST, FLOOR = (listed(f"{name}_TESTS") for name in ("CORE", "OLDEST", "FLOOR"))


def test_every_core_test_exists():
    names = [*CORE, *OLDEST]
    assert len(names) > 10 and len(FLOOR) > 4
    for name in [*names, *FLOOR]:
        path, _, function = name.partition("::")
        assert (ROOT / path).exists(), name
        if function:
            assert f"def {function.partition('[')[0]}(" in (ROOT / path).read_text("utf-8"), name
    assert len(set(names)) == len(names)


@pytest.fixture
def checkout(tmp_path):
    """The scripts in an otherwise empty checkout, with environments that only print."""
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").touch()
    for venv in (".venv", ".venv-tf2.10", ".venv-tf2.15", ".venv-tf2.21"):
        for program in ("python", "ruff"):
            path = tmp_path / venv / "bin" / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'#!/bin/sh\necho {venv}/{program} "$@"\n')
            path.chmod(0o755)
    (tmp_path / "scripts" / "setup.sh").write_text('echo "setup of $TF"\n')
    (tmp_path / "scripts" / "install_horovod.sh").write_text('echo "Horovod for $TF"\n')
    return tmp_path


@pytest.mark.parametrize("arguments", [["--tf", "2.15"], ["--tf=2.15", "-x"]], ids=" ".join)
def test_core_tests_are_chosen_for_2_15(checkout, arguments):
    result = bash(checkout / "scripts" / "test.sh", *arguments)
    assert result.status == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "setup of 2.15"
    assert lines[-1].startswith(".venv-tf2.15/python -m pytest")
    for name in [*CORE, *OLDEST]:
        assert name in lines[-1]
    assert ("-x" in lines[-1].split()) == ("-x" in arguments)
    assert "ruff" not in result.stdout


def test_fewer_are_chosen_for_2_21(checkout):
    last = bash(checkout / "scripts" / "test.sh", "--tf", "2.21").stdout.splitlines()[-1]
    assert last.startswith(".venv-tf2.21/python -m pytest")
    assert all(name in last for name in CORE) and not any(name in last for name in OLDEST)


def test_the_fewest_are_chosen_for_2_10(checkout):
    result = bash(checkout / "scripts" / "test.sh", "--tf=2.10")
    last = result.stdout.splitlines()[-1].split()
    assert "Horovod for 2.10" in result.stdout and "ruff" not in result.stdout
    assert last[0] == ".venv-tf2.10/python" and last[-len(FLOOR) :] == FLOOR
    assert not {"tests/models", "tests/layers", "tests/parity", *OLDEST} & set(last)


@pytest.mark.parametrize("version", ["2.15", "2.20", "2.21"])
def test_the_floor_of_another_version_is_that_of_2_10(checkout, version):
    result = bash(checkout / "scripts" / "test.sh", "--floor", "--tf", version)
    assert result.stdout.splitlines()[-1].split()[-len(FLOOR) :] == FLOOR
    assert not {"tests/models", "tests/layers", *OLDEST} & set(result.stdout.split())


@pytest.mark.parametrize("chosen", ["tests/test_one.py", "tests/test_one.py::test_it"])
def test_tests_that_are_named_are_all_that_runs(checkout, chosen):
    result = bash(checkout / "scripts" / "test.sh", "--tf", "2.15", chosen)
    assert result.stdout.splitlines()[-1].endswith(chosen)
    assert "tests/models" not in result.stdout


def test_everything_is_chosen_for_2_20(checkout):
    result = bash(checkout / "scripts" / "test.sh", "-k", "name")
    lines = result.stdout.splitlines()
    assert lines[0] == "setup of 2.20"
    assert ".venv/ruff check ." in lines
    assert lines[-1].startswith(".venv/python -m pytest") and lines[-1].endswith(" -k name")


@pytest.mark.parametrize("status", [0, 3])
def test_ci_runs_all_and_fails_when_the_first_does(checkout, status):
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho .venv/python "$@"\nexit {status}\n')
    result = bash(checkout / ".ci" / "run")
    assert result.status == status
    assert "setup of 2.20" in result.stdout
    for version in ("2.15", "2.21"):
        assert f".venv-tf{version}/python -m pytest" in result.stdout
    for version in ("2.20", "2.15", "2.21"):
        assert f"Horovod for {version}" in result.stdout
    passed = [" passed in ", " passed in ", " passed in "]
    if status:
        passed[0] = " failed with status 3 after "
        assert result.stdout.count(".venv/python -m pytest") == 2, "not shown again at the end"
    last = result.stdout.splitlines()[-3:]
    for line, version, word in zip(last, ("2.20", "2.15", "2.21"), passed, strict=True):
        assert line.startswith(f"ci: TensorFlow {version}:{word}")


@pytest.mark.parametrize("within", ["-1", "2700"])
def test_ci_runs_fewer_of_the_others_where_the_first_took_long_and_says_so(checkout, within):
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    result = bash(checkout / ".ci" / "run", CORE_WITHIN=within)
    assert result.status == 0, str(result)
    runs = [line for line in result.stdout.splitlines() if "python -m pytest" in line]
    first, *others = result.stdout.splitlines()[-3:]
    assert "tests/test_oldest.py" not in runs[0] and "--floor" not in first
    for line, said in zip(runs[1:], others, strict=True):
        assert ("tests/models" in line) == (within == "2700")
        assert ("tests/test_oldest.py" in line) == (within == "-1")
        assert ("--floor alone: 2.20 took longer than -1 s" in said) == (within == "-1")


def test_ci_says_what_it_had_no_time_to_run(checkout):
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    result = bash(checkout / ".ci" / "run", BEGIN_WITHIN="-1")
    assert result.status == 0, str(result)
    first, *others = result.stdout.splitlines()[-3:]
    assert " passed in " in first and ".venv-tf" not in result.stdout
    for line, version in zip(others, ("2.15", "2.21"), strict=True):
        assert line.startswith(f"ci: TensorFlow {version}: NOT RUN, ")


def test_ci_tells_at_its_end_what_the_lint_found(checkout):
    """A file in another format ends the run of 2.20 long before the last line of the whole."""
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    ruff = checkout / ".venv" / "bin" / "ruff"
    ruff.write_text(
        '#!/bin/sh\n[ "$1" = check ] || { echo "1 file would be reformatted"; exit 1; }\n'
    )
    result = bash(checkout / ".ci" / "run")
    assert result.status == 1
    assert ".venv/python -m pytest" not in result.stdout
    assert "1 file would be reformatted" in "\n".join(result.stdout.splitlines()[-10:])


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("asked", [(), ("--horovod",), ("--no-horovod",), ("tests/test_one.py",)])
@pytest.mark.parametrize("ci", ["", "true"])
def test_horovod_is_built_for_a_whole_run_and_its_absence_is_told(checkout, asked, built, ci):
    script = checkout / "scripts" / "install_horovod.sh"
    script.write_text(f'echo "Horovod for $TF"\nexit {0 if built else 1}\n')
    python = checkout / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "required: ${REQUIRE_HOROVOD-no}" "$@"\n')
    result = bash(checkout / "scripts" / "test.sh", *asked, CI=ci, REQUIRE_HOROVOD="no")
    wanted = asked in ((), ("--horovod",))
    must = wanted and bool(asked or ci)
    assert ("Horovod for 2.20" in result.stdout) == wanted
    assert result.status == (1 if must and not built else 0)
    if result.status:
        assert "--no-horovod tests without it" in result.stderr
        return
    assert f"required: {1 if wanted and built else 'no'} -m pytest" in result.stdout
    assert ("tests of several processes are skipped" in result.stderr) == (wanted and not built)
    assert "horovod" not in result.stdout


def test_help_and_missing_version():
    result = bash(ROOT / "scripts" / "test.sh", "--help")
    assert result.status == 0
    assert "bash scripts/test.sh --tf 2.15" in result.stdout and "#" not in result.stdout
    result = bash(ROOT / "scripts" / "test.sh", "--tf")
    assert result.status == 2 and "--tf needs a version" in result.stderr


def test_unknown_version_is_refused_with_those_there_are():
    result = bash(ROOT / "scripts" / "test.sh", "--tf", "2.99")
    assert result.status == 1
    assert "no constraints/tf2.99.txt" in result.stderr
    assert "tf2.10.txt tf2.15.txt tf2.20.txt tf2.21.txt" in result.stderr


@pytest.fixture
def recording(tmp_path):
    """A checkout to set up, and an interpreter that writes down what it is called with."""
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name)
    python = tmp_path / "python3"
    python.write_text(
        f'#!/bin/sh\necho "$@" TF=$SSD_CENTERNET_TF >> {tmp_path}/calls\n'
        '[ "$2" != venv ] || { mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; }\n'
    )
    python.chmod(0o755)
    for name in ("setup.py", "pyproject.toml"):
        (tmp_path / name).touch()
    return tmp_path


def installations(checkout, *arguments, **variables):
    setup = {"PYTHON": str(checkout / "python3"), "EXTRAS": "", "TENSORFLOW": "", **variables}
    result = bash(checkout / "scripts" / "setup.sh", *arguments, **setup)
    assert result.status == 0, result.stderr
    rows = (checkout / "calls").read_text().splitlines()
    return [row for row in rows if "--constraint" in row]


def interpreter_of(version, path):
    """Write an interpreter that says it is of a version, and makes no environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = tuple(map(int, version.split(".")))
    path.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && echo Python {version} && exit 0\n'
        f'[ "$1" = -c ] && exec {sys.executable} -c "import sys\n'
        f'sys.version_info = {parts}\n$2"\n'
        'echo "made with $0 $*" >&2\nexit 1\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["2.10", "2.15", "2.20", "2.21"])
def test_the_model_garden_is_installed_where_it_has_a_release(recording, version):
    (line,) = installations(recording, TF=version)
    extras = "train,test" if version in ("2.10", "2.21") else "train,model_garden,test"
    wanted = f"--constraint constraints/tf{version}.txt --editable .[{extras}] TF={version}"
    assert line.endswith(wanted)


def test_the_peers_have_an_environment_of_their_own_which_is_made_once(recording):
    (recording / "benchmarks").mkdir()
    pins = recording / "benchmarks" / "peers.txt"
    shutil.copy(ROOT / "benchmarks" / "peers.txt", pins)
    (line,) = installations(recording, "peers", TF="2.20")
    assert line.endswith(
        "--constraint constraints/tf2.20.txt --requirement benchmarks/peers.txt TF="
    )
    assert (recording / ".venv-peers").exists() and not (recording / ".venv").exists()
    assert len(installations(recording, "peers", TF="2.20")) == 1
    pins.write_text(pins.read_text() + "more\n")
    assert len(installations(recording, "peers", TF="2.20")) == 2


@pytest.mark.parametrize("arguments", [("pears",), ("peers", "2.15")])
def test_setup_refuses_what_it_cannot_make(recording, arguments):
    what, version = (*arguments, "2.20")[:2]
    result = bash(recording / "scripts" / "setup.sh", what, TF=version, TENSORFLOW="")
    assert result.status == 1 and "setup: pe" in result.stderr
    assert not list(recording.glob(".venv*"))


def test_2_15_refuses_a_python_that_it_has_no_wheels_for(tmp_path):
    """An interpreter that says it is 3.12 will do for 2.20 alone."""
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name)
    python = interpreter_of("3.12.1", tmp_path / "python3")
    setup = tmp_path / "scripts" / "setup.sh"
    result = bash(setup, TF="2.15", PYTHON=str(python))
    assert result.status == 1
    assert "Python 3.10 or 3.11" in result.stderr and "Python 3.12.1" in result.stderr
    assert not (tmp_path / ".venv-tf2.15").exists()
    result = bash(setup, TF="2.20", PYTHON=str(python))
    assert "cannot make a virtual environment" in result.stderr


@pytest.mark.parametrize("there", [True, False], ids=["pyenv", "none"])
def test_2_10_takes_python_3_10_alone_and_finds_that_of_pyenv(tmp_path, there):
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name)
    programs, pyenv = tmp_path / "bin", tmp_path / "pyenv"
    for name, version in (
        ("python3", "3.12.1"),
        ("python3.10", "3.9.18"),
        ("python3.11", "3.11.7"),
    ):
        interpreter_of(version, programs / name)
    kept = "bash dirname cat grep head sha256sum cut rm flock env sh".split()
    for name in kept:
        (programs / name).symlink_to(shutil.which(name))
    if there:
        interpreter_of("3.10.13", pyenv / "versions" / "3.10.13" / "bin" / "python")
    env = {"TF": "2.10", "PATH": str(programs), "PYENV_ROOT": str(pyenv), "TENSORFLOW": ""}
    result = bash(tmp_path / "scripts" / "setup.sh", **env)
    assert result.status == 1 and not (tmp_path / ".venv-tf2.10").exists()
    if there:
        assert "making .venv-tf2.10 with Python 3.10.13" in result.stdout
    else:
        for said in ("Python 3.10, the only one", "python3 is Python 3.12.1", "pyenv install 3.10"):
            assert said in result.stderr


@pytest.mark.parametrize(
    ("named", "wanted", "missing"),
    [
        ("", ["tensorflow>=2.15,<2.22", "tf_keras>=2.15,<2.22", "tf2onnx>=1.17"], []),
        ("2.20", ["tensorflow>=2.15,<2.22", "tf_keras>=2.15,<2.22", "tf2onnx>=1.17"], []),
        ("2.10", ["tensorflow>=2.10,<2.15"], ["tf_keras", "tf2onnx", "onnxruntime"]),
        ("2.10.1", ["tensorflow>=2.10,<2.15"], ["tf_keras", "tf2onnx", "onnxruntime"]),
    ],
)
def test_what_the_package_asks_for_follows_the_version(named, wanted, missing):
    code = (
        "import setuptools, sys; kept = {}; setuptools.setup = kept.update; "
        "import runpy; runpy.run_path('setup.py'); "
        "print(*kept['install_requires'], *kept['extras_require']['test'], sep='\\n')"
    )
    result = run(sys.executable, "-c", code, cwd=ROOT, env=environment(SSD_CENTERNET_TF=named))
    rows = result.stdout.split()
    assert set(wanted) <= set(rows)
    assert not [row for row in rows if row.startswith(tuple(missing) or ("no such",))]


_BUILDS = """#!/bin/sh
[ "$*" = "-m ssd_centernet.native.build" ] || exit 0
[ -z "$FAILS" ] || { echo "a line" >&2; echo "Error: there is no C++ compiler" >&2; exit 1; }
echo built >>"$0.builds"
touch "$0.library"
echo "$0.library"
"""


@pytest.fixture
def installed(checkout):
    """A checkout with the real setup.sh, whose environment only builds the compiled operations."""
    shutil.copy(ROOT / "scripts" / "setup.sh", checkout / "scripts")
    (checkout / "ssd_centernet" / "native").mkdir(parents=True)
    sources = [f"ssd_centernet/native/{name}" for name in ("build.py", "ops.cc", "ops.h")]
    for name in ("setup.py", "pyproject.toml", *sources):
        (checkout / name).touch()
    (checkout / ".venv" / "bin" / "python").write_text(_BUILDS)
    return checkout


def set_up(checkout, **variables):
    """Set the checkout up again; say how often the operations were built until now."""
    ended = bash(checkout / "scripts" / "setup.sh", **variables)
    assert ended.status == 0, str(ended)
    builds = checkout / ".venv" / "bin" / "python.builds"
    return builds.read_text().count("built") if builds.exists() else 0, ended.stderr


def test_compiled_operations_are_built_again_where_they_are_gone_or_of_other_sources(installed):
    assert set_up(installed) == (1, "")
    assert set_up(installed) == (1, "")
    (installed / ".venv" / "bin" / "python.library").unlink()
    assert set_up(installed) == (2, "")
    (installed / "ssd_centernet" / "native" / "ops.cc").write_text("// Other sources.")
    assert set_up(installed) == (3, "")
    assert set_up(installed) == (3, "")


def test_compiled_operations_that_cannot_be_built_are_told_once(installed):
    builds, told = set_up(installed, FAILS=1)
    assert builds == 0
    assert told == (
        "setup: the input pipeline does without compiled operations: "
        "Error: there is no C++ compiler\n"
    )
    assert set_up(installed, FAILS=1) == (0, "")
