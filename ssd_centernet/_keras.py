"""Choose the Keras 2 that belongs to the installed TensorFlow.

Every other module of the package does `from ssd_centernet._keras import keras`. From TensorFlow
2.16 on the attribute of tensorflow is Keras 3, so Keras 2 comes from the package tf_keras; its
internals follow TensorFlow's, which is why both minor versions must agree. That of a TensorFlow
older than 2.14 gets the names of later ones from `_older_keras.py`.
"""

import importlib.metadata
import os
from types import ModuleType

import tensorflow as tf

from ssd_centernet._older_keras import adapt

_LOWEST = (2, 10)


def minor_version(version: str) -> tuple[int, int]:
    """Return the (major, minor) pair of a version string such as '2.20.0-rc1'."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def select_keras(tensorflow_version: str) -> ModuleType:
    """Return the Keras 2 module that works with a TensorFlow version.

    Args:
        tensorflow_version: version of the TensorFlow that is installed, such as '2.20.0'.

    Returns:
        The module of Keras 2.

    Raises:
        ImportError: TensorFlow is too old, tf_keras is missing, or its minor version differs.
    """
    wanted = minor_version(tensorflow_version)
    text = f"{wanted[0]}.{wanted[1]}"
    if wanted < _LOWEST:
        raise ImportError(
            f"tensorflow {tensorflow_version} is installed; ssd_centernet needs 2.10 or newer. "
            'Install one: pip install "tensorflow>=2.10,<2.22"'
        )
    if wanted < (2, 14):
        return adapt(tf.keras)
    if wanted <= (2, 15):
        return tf.keras
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError(
            f"ssd_centernet is built on Keras 2, which for tensorflow {tensorflow_version} is the "
            f"package tf_keras. It cannot be imported ({error}). "
            f'Install it: pip install "tf_keras~={text}.0"'
        ) from error
    if minor_version(tf_keras.__version__) != wanted:
        raise ImportError(
            f"tensorflow {tensorflow_version} and tf_keras {tf_keras.__version__} do not belong "
            "together: their minor versions must agree. "
            f'Install the matching one: pip install "tf_keras~={text}.0"'
        )
    return tf_keras


keras = select_keras(tf.__version__)


def keras_version() -> str:
    """Return the version of `keras`, such as '2.15.0'."""
    # TensorFlow 2.15 shows its Keras without one.
    return getattr(keras, "__version__", None) or importlib.metadata.version("keras")


def check_keras_file(path: str | os.PathLike) -> None:
    """Check that the installed Keras knows the format of a path in `.keras`.

    Args:
        path: a file to write or to read; names with other endings pass.

    Raises:
        ValueError: it is a `.keras` file and TensorFlow is older than 2.12.
    """
    if not str(path).endswith(".keras") or minor_version(tf.__version__) >= (2, 12):
        return
    raise ValueError(
        f"{path} is a .keras file, and tensorflow {tf.__version__} is installed: the format came "
        "with TensorFlow 2.12. Move the weights instead: detector.save_weights('NAME.h5') writes "
        "them with their names, in every version, and restore(detector, 'NAME.h5') or "
        "--fine_tune_checkpoint=NAME.h5 reads them; or install a later TensorFlow."
    )


def explain_foreign(value: object, want: str) -> str | None:
    """Say that an object is of another Keras than the library's, where it is.

    Keras 3 and Keras 2 have the same names for classes that do not know each other, and
    `tf.keras` is Keras 3 from TensorFlow 2.16 on.

    Args:
        value: what somebody gave, an object or a class.
        want: what it should have been, in our Keras: 'optimizers.Adam'.

    Returns:
        A sentence that says which import to use instead; None for what is of our Keras or of none.
    """
    kind = value if isinstance(value, type) else type(value)
    ours = keras.__name__.split(".")[0]
    roots = [base.__module__.split(".")[0] for base in kind.__mro__]
    # Of TensorFlow 2.15 the package keras is our own, under another name.
    same = {ours, "keras"} if ours == "tensorflow" else {ours}
    other = next((root for root in roots if root in ("keras", "tf_keras")), None)
    if other is None or other in same:
        return None
    return (
        f"{kind.__module__}.{kind.__name__} belongs to another Keras (package {other!r}) than this "
        f"library, which is built on Keras 2 (package {ours!r}); tf.keras of TensorFlow 2.16 and "
        "later is Keras 3. Take it from the same Keras: from ssd_centernet import keras, then "
        f"keras.{want}."
    )
