"""SSD320 ResNet-50-FPN against its reference vectors.

Source: docs/reference/ssd320_resnet50_fpn.md, section 16 (inputs and tolerances)
"""

from tests.parity.ssd320_resnet50_fpn import detections, inputs, network, targets

# A set with other seeds may lack it: nothing is then compared with it.
OPTIONAL_FILES = ("variables.json",)

SECTIONS = {
    "anchors": targets.anchors,
    "targets": targets.targets,
    "losses": targets.losses,
    "detections": detections.detections,
    "learning_rate": inputs.learning_rate,
    "augmentation": inputs.augmentation,
    "variables": network.variables,
    "inference": network.inference,
    "training": network.training,
}

DELIBERATE = {
    "network_*.npz: 91 slots": (
        "there is one slot for each class of the label map (80 for COCO) behind background, not "
        "one for each id; the compared network is built with as many as the reference's"
    ),
    "targets.npz: at most 100 objects": (
        "the matching takes any number of objects, where the reference's input keeps the first 100"
    ),
    "network_training.npz:regularization_loss": (
        "is no part of the reported losses; its gradient is added to theirs, and the comparison "
        "adds its value"
    ),
    "network_training.npz:moving_after_*": (
        "the batch has a share of 0.003 in moving statistics; the reference computes 1 - 0.997 in "
        "float32, which is 7e-6 more, and the comparison takes that out"
    ),
}
