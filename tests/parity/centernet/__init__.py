"""CenterNet's two variants against their reference vectors.

Source: reference specification centernet, section 10 (inputs and tolerances).
"""

from tests.parity.centernet import decoder, inputs, losses, network, targets

# The held-out sets lack them: nothing is then compared with them.
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

DELIBERATE: dict[str, str] = {}
