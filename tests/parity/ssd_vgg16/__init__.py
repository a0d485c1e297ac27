"""SSD300 and SSD512 VGG-16 against their reference vectors.

Source: docs/reference/ssd_vgg16.md, section 16 (inputs and tolerances)
"""

from tests.parity.ssd_vgg16 import augment, detections, inputs, network, targets

# Their values are those of the weights that belong to an empty salt.
OPTIONAL_FILES = ("params_ssd300.json", "params_ssd512.json")

SECTIONS = {
    "anchors": targets.anchors,
    "targets": targets.targets,
    "losses": targets.losses,
    "detections": detections.detections,
    "v3_variants": detections.v3_variants,
    "schedule": inputs.schedule,
    "image_ops": inputs.image_ops_section,
    "augment_stats": augment.augment_stats,
    "params": network.params,
    "network300": network.network300,
    "network512": network.network512,
}

DELIBERATE = {
    "background": (
        "is the first of our logits in every system, the last of the reference's: classes, logits "
        "and class kernels are permuted before they are compared"
    ),
    "v3_variants.npz: at most 1000 candidates of each map": (
        "is not implemented: every candidate enters the suppression, as in the version that the "
        "recipe follows; dropping boxes without area is a setting"
    ),
    "schedule.npz: lr": (
        "rates are compared in float64; the step uses them rounded to float32, which is compared "
        "to the rounding of float32"
    ),
    "anchors.npz: tv300": (
        "torchvision clips sizes to the image, which the reference proper does not: ours are "
        "clipped for the comparison"
    ),
    "losses.npz: tv_loss": (
        "torchvision counts nothing for an image without objects; its losses are ours times the "
        "two normalisers' quotient"
    ),
    "augment_stats.npz": (
        "random streams differ, so that samples are compared as distributions; what a crop does to "
        "the boxes is compared row by row"
    ),
}
