"""Choose the Keras 2 that belongs to the installed TensorFlow.

Every other module of the package does `from ssd_centernet._keras import keras`. From TensorFlow
2.16 on the attribute of tensorflow is Keras 3, so Keras 2 comes from the package tf_keras; its
internals follow TensorFlow's, which is why both minor versions must agree.
"""

from types import ModuleType

import tensorflow as tf

_LOWEST = (2, 15)


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
            f"tensorflow {tensorflow_version} is installed; ssd_centernet needs 2.15 or newer. "
            'Install one: pip install "tensorflow>=2.15,<2.21"'
        )
    if wanted == _LOWEST:
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
