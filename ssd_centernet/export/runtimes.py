"""Exported files opened by the programs that run them, without TensorFlow where it can be."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ssd_centernet.runtime.quiet import held_back

# Beside a file of OpenVINO.
WEIGHTS = ".bin"
# Package -> the extra of setup.py that installs it.
_EXTRAS = {"tf2onnx": "export", "onnxruntime": "export", "openvino": "openvino", "nncf": "openvino"}
# What openvino and nncf report their use with, to their makers.
_TELEMETRY = "openvino_telemetry"


def tflite_signature(path: str | os.PathLike, *, threads: int | None = None):
    """Load a TFLite file and return its signature, a function of named arrays.

    Args:
        path: the file.
        threads: how many compute; None takes all processors.
    """
    if importlib.util.find_spec("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter
    else:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    with quiet():
        interpreter = Interpreter(model_path=os.fspath(path), num_threads=threads or os.cpu_count())
        interpreter.allocate_tensors()  # Where it tells which kernels it takes.
    return interpreter.get_signature_runner()


def onnx_session(path: str | os.PathLike, *, threads: int | None = None):
    """Load an ONNX file with onnxruntime, for the CPU.

    Args:
        path: the file.
        threads: how many compute; None leaves it to onnxruntime.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(missing("onnxruntime", "onnx")) from error
    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )


def openvino_model(path: str | os.PathLike, *, threads: int | None = None):
    """Load a file of OpenVINO for the CPU; it computes in float32, or in its integers.

    OpenVINO itself would take bfloat16 on processors that have it.

    Args:
        path: the file, which ends in .xml; its weights lie beside it.
        threads: how many compute; None leaves it to OpenVINO.

    Raises:
        ImportError: openvino is not installed.
        FileNotFoundError: the weights are not there.
    """
    openvino = import_openvino("openvino")
    weights = Path(path).with_suffix(WEIGHTS)
    if not weights.is_file():
        raise FileNotFoundError(
            f"{weights} is missing: it holds the weights of {Path(path).name}. Keep the files of "
            "an export together, or export again."
        )
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    with quiet():
        return openvino.Core().compile_model(os.fspath(path), "CPU", settings)


def import_openvino(name: str):
    """Import openvino or nncf, which then send nothing: both report each import over the network.

    Args:
        name: of the package.

    Raises:
        ImportError: it is not installed.
    """
    hidden = object()
    before = sys.modules.get(_TELEMETRY, hidden)
    # A package that is None cannot be imported; both then do without it.
    sys.modules[_TELEMETRY] = None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(missing(name, "openvino")) from error
    finally:
        if before is hidden:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before


def missing(package: str, format_: str) -> str:
    """Tell what to install for a format."""
    import tensorflow as tf

    if tuple(map(int, tf.__version__.split(".")[:2])) < (2, 12):
        return (
            f"{package} is not installed, which the format {format_} needs, and it does not go "
            f"with the protobuf of TensorFlow {tf.__version__}: leave {format_} out of --formats "
            "(saved_model and tflite work), or export with TensorFlow 2.12 or later."
        )
    return (
        f"{package} is not installed, which the format {format_} needs: pip install "
        f'"ssd_centernet[{_EXTRAS[package]}]", or leave {format_} out of --formats.'
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what converters write to standard error."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with held_back():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
