"""CenterNet's two variants against their reference vectors.

Source: docs/reference/centernet.md, section 10 (inputs and tolerances)
"""

from tests.parity.centernet import decoder, inputs, losses, network, targets

# A set with other seeds may lack them: nothing is then compared with them.
OPTIONAL_FILES = (
    "variables_a_hg20.json",
    "variables_a_hg52_small.json",
    "variables_a_hg104.json",
    "variables_b_resnet101fpn.json",
)

SECTIONS = {
    "variables": network.variables,
    "targets_a": targets.targets_a,
    "targets_b": targets.targets_b,
    "losses_a": losses.losses_a,
    "losses_b": losses.losses_b,
    "decoder_a": decoder.decoder_a,
    "decoder_b": decoder.decoder_b,
    "resnet_fpn": network.resnet_fpn,
    "hourglasses": network.hourglasses,
    "augment_a": inputs.augment_a,
    "augment_b": inputs.augment_b,
    "lr_a": inputs.lr_a,
    "lr_b": inputs.lr_b,
    "summary_b": inputs.summary_b,
}

DELIBERATE = {
    "targets_a.npz: rows without an object": (
        "have index 0 and weight 0; in the reference they hold index -1 and offset 0.75, which no "
        "CPU can gather, and are counted where objects were lost in a crop (case `phantom`). The "
        "comparison fills them in"
    ),
    "targets_b.npz:weighted": (
        "an object of weight 0 has an empty row; the reference fills in what no loss reads"
    ),
    "decoder_a.npz:nms": (
        "there is no suppression of boxes; the reference's is off in every configuration, ignores "
        "its settings, takes corners for centre and size, and returns classes that do not belong "
        "to its boxes. The comparison restates it over our candidates"
    ),
    "decoder_a.npz, decoder_b.npz: frames": (
        "boxes are fractions of the image and classes count from 0, whatever the variant"
    ),
    "decoder_b.npz:*/out/detection_multiclass_scores": (
        "are not among the detections; the comparison gathers them at our cells"
    ),
    "net_a_*.npz, net_b_*.npz: 90 channels": (
        "there is one channel for each class of the label map (80 for COCO), not one for each id; "
        "the compared networks are built with as many as the reference's"
    ),
    "augment_a.npz:parse_eval/*/groundtruths": (
        "boxes without area are left out when records are read, so they are no ground truth either"
    ),
    "augment_a.npz:parse_eval/*/unpad_image_shapes": (
        "`extent` tells the share of the input that the picture covers, instead of counting its "
        "padding as picture; the squares that the published runs train on cover all of it in both"
    ),
}
