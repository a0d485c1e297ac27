"""What libraries write to standard error past Python is held back, and given out on failure."""

import os
import sys

import pytest

from tests.process import ROOT, environment, python, run

NOISE = 'import os\nos.write(2, b"I0000 noise\\n")\n'


def start(folder, content, level=None):
    """Run the command line where a package of this content stands for tensorflow."""
    (folder / "tensorflow").mkdir()
    (folder / "tensorflow" / "__init__.py").write_text(NOISE + content)
    code = "import sys\nfrom ssd_centernet.cli import main\n"
    code += "main._dispatch = lambda arguments: __import__('tensorflow').ANSWER\nmain.run(['x'])"
    paths = f"{folder}{os.pathsep}{ROOT}"
    env = environment(TF_CPP_MIN_LOG_LEVEL=level, PYTHONPATH=paths)
    return python(code, env=env, status=None)


@pytest.mark.parametrize("level", [None, "0"])
def test_the_command_line_imports_tensorflow_without_its_noise_unless_a_level_is_set(
    tmp_path, level
):
    done = start(tmp_path, "ANSWER = 7\n", level)
    assert done.status == 7, done
    assert done.stderr == ("" if level is None else "I0000 noise\n")


LOGS = """
import sys
from ssd_centernet.cli import main

def log(arguments):
    import tensorflow as tf
    tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0))
    return 0

main._dispatch = log
main.run(["x"])
"""


def test_what_tensorflow_logs_while_it_works_follows_the_level():
    """Lines of Abseil go around TF_CPP_MIN_LOG_LEVEL: XLA writes one when it first compiles."""
    assert python(LOGS, env=environment(TF_CPP_MIN_LOG_LEVEL=None)).stderr == ""


def test_a_tensorflow_that_cannot_be_imported_is_heard(tmp_path):
    done = start(tmp_path, "raise ImportError('libcudart.so.12 is missing')\n")
    assert done.status == 1
    assert done.stderr.index("I0000 noise") < done.stderr.index("libcudart.so.12 is missing")


def test_a_process_without_standard_error_works():
    code = "from ssd_centernet.runtime.quiet import held_back\nwith held_back(): print(7)"
    command = f'exec "{sys.executable}" -c "{code}" 2>&-'
    assert run("bash", "-c", command).stdout == "7\n"


def test_a_module_of_the_library_says_where_the_command_is(warm):
    ended = run(warm, "-m", "ssd_centernet.train", "--gin_file=ssd_demo", status=1)
    assert "The command: python -m ssd_centernet train" in ended.stderr
