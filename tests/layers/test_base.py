"""What all layers check of their settings."""

import re

import pytest

from ssd_centernet.layers.centernet_criteria import CenterNetLoss
from ssd_centernet.layers.criteria import MultiBoxLoss
from ssd_centernet.layers.focal_criterion import FocalMultiBoxLoss

WEIGHTS = {
    MultiBoxLoss: ("class_loss_weight", "box_loss_weight"),
    FocalMultiBoxLoss: ("class_loss_weight", "box_loss_weight"),
    CenterNetLoss: ("center_loss_weight", "size_loss_weight", "offset_loss_weight"),
}


@pytest.mark.parametrize(
    ("part", "name"), [(part, one) for part in WEIGHTS for one in WEIGHTS[part]]
)
def test_a_loss_that_would_grow_by_training_is_refused(part, name):
    for value in (-1.0, -1, float("nan"), float("inf"), "2", None, True):
        told = f"{part.__name__}.{name} must be a number of 0 or more, got {value!r}."
        with pytest.raises(ValueError, match=re.escape(told)):
            part(**{name: value})
    assert 0.0 in part(**{name: 0.0}).loss_weights.values()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"scale_factors": (10.0, 10.0, 0.0, 5.0)}, "scale_factors must be four numbers above 0"),
        ({"negatives_per_positive": -1}, "negatives_per_positive must be a number of 0 or more"),
        ({"negatives_of_empty_image": -1}, "negatives_of_empty_image must be a number of 0"),
    ],
)
def test_numbers_that_would_teach_something_else_are_refused(setting, told):
    with pytest.raises(ValueError, match=f"^MultiBoxLoss.{told}"):
        MultiBoxLoss(**setting)


@pytest.mark.parametrize("part", WEIGHTS)
def test_losses_that_all_count_nothing_are_refused(part):
    with pytest.raises(ValueError, match="_loss_weight are 0: nothing would be learnt"):
        part(**dict.fromkeys(WEIGHTS[part], 0.0))
    part(**dict.fromkeys(WEIGHTS[part][1:], 0.0))


@pytest.mark.parametrize("part", WEIGHTS)
def test_choices_are_told_with_the_name_that_recipes_use(part):
    with pytest.raises(ValueError, match=f"^{part.__name__}.crowd must be one of .*, got 'maybe'"):
        part(crowd="maybe")


def test_a_part_of_a_user_is_told_by_its_own_name():
    class Mine(MultiBoxLoss):
        """A criterion that somebody derived."""

    with pytest.raises(ValueError, match=r"^Mine\.box_loss must be one of .*, got 'l1'\."):
        Mine(box_loss="l1")
