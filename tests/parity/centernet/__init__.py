"""The two CenterNets against their reference vectors.

Source: reference specification centernet, section 10 (inputs and tolerances).
"""

from tests.parity.centernet import inputs

# The held-out sets lack them: nothing is then compared with them.
OPTIONAL_FILES = (
    "variables_a_hg104.json",
    "variables_a_hg20.json",
    "variables_a_hg52_small.json",
    "variables_b_resnet101fpn.json",
)

SECTIONS = {
    "augment_a": inputs.augment_a,
    "augment_b": inputs.augment_b,
    "lr_a": inputs.lr_a,
    "lr_b": inputs.lr_b,
    "summary_b": inputs.summary_b,
}

DELIBERATE = {
    "augment_a.npz:parse_eval/*/groundtruths": (
        "boxes without area are left out when records are read, so they are no ground truth either"
    ),
    "augment_a.npz:parse_eval/*/unpad_image_shapes": (
        "`extent` tells the share of the input that the picture covers, instead of counting its "
        "padding as picture; the squares that the published runs train on cover all of it in both"
    ),
}
