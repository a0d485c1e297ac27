"""SSD320 ResNet-50-FPN against its reference vectors.

Source: reference specification ssd320_resnet50_fpn, section 16 (inputs and tolerances).
"""

from tests.parity.ssd320_resnet50_fpn import inputs

# The held-out sets may lack it: nothing is then compared with it.
OPTIONAL_FILES = ("variables.json",)

SECTIONS = {
    "learning_rate": inputs.learning_rate,
    "augmentation": inputs.augmentation,
}

DELIBERATE: dict[str, str] = {}
