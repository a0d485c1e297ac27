"""The random weights that a seed gives: a change of the code must not change old results."""

import numpy as np
import pytest

import ssd_centernet as sc
from ssd_centernet._keras import keras


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("ssd_demo", 374345.55552),
        ("ssd_fpn_demo", 563669.53253),
        ("centernet_demo", 698937.63121),
    ],
)
def test_first_weights_of_a_seed(recipe, expected):
    """Layers draw in the order of their first calls, so another order gives other weights."""
    keras.utils.set_random_seed(0)
    detector = sc.build(recipe, num_classes=3)
    kernels = [v.numpy() for v in detector.trainable_variables if "kernel" in v.name]
    # Weighted, so that two layers that change places are noticed.
    found = sum(
        place * np.abs(kernel.astype(np.float64)).sum() for place, kernel in enumerate(kernels, 1)
    )
    assert found == pytest.approx(expected, rel=1e-8)
