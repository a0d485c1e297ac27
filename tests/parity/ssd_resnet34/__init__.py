"""SSD300 ResNet-34 against its reference vectors.

Source: docs/reference/ssd_resnet34.md, section 19 (inputs and tolerances)
"""

from tests.parity.ssd_resnet34 import detections, inputs, network, targets

# A set with other seeds may lack them: nothing is then compared with them.
OPTIONAL_FILES = ("anchors.npz", "variables.json")

SECTIONS = {
    "anchors": targets.anchors,
    "targets": targets.targets,
    "losses": targets.losses,
    "detections": detections.detections,
    "learning_rate": inputs.learning_rate,
    "augment": inputs.augment,
    "input_pipeline": inputs.input_pipeline,
    "variables": network.variables,
    "network": network.network,
    "train_steps": network.train_steps,
}

DELIBERATE = {
    "losses.npz:zero_matched_total_class_box": (
        "a batch without any matched anchor gives loss 0 and zero gradients instead of NaN, so "
        "that images without objects can be trained on"
    ),
    "targets.npz, input_pipeline.npz: label -1": (
        "a class that the label map does not know is an error when records are read; the matching "
        "itself gives -1 as the reference does, which our criterion ignores instead of counting "
        "it among the mined background"
    ),
    "detections.npz: order of *_det_*": (
        "detections are in descending order of score, the reference's in ascending order; rows "
        "are compared after sorting by label and score"
    ),
    "detections.npz: dummy row of images without detections": (
        "`count` is 0 and nothing is handed to the metric, instead of one row of zeros with "
        "score -100000 and category 0"
    ),
    "input_pipeline.npz:eval_num_batches_of_2": (
        "evaluation covers every image (the last batch is filled up with images that nobody "
        "counts), instead of dropping the remainder"
    ),
}
