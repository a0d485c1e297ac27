import numpy as np

from ssd_centernet.data import loading, records
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.ops import image as image_ops
from tests.data.test_pipeline import LABELS, evaluation, record, training, write


def test_padding_is_told_to_targets_and_boxes_move_with_it(tmp_path):
    folder = write(tmp_path, [record(1, count=2)])
    preprocessing = Preprocessing((64, 32), keep_aspect=True)

    def chain(example, seed):
        del seed
        return loading.preprocess_example(example, preprocessing)

    def targets(boxes, classes, is_crowd, extent):
        del boxes, classes, is_crowd
        return {"extent": extent}

    example = records.parse_example(record(1, count=2), LABELS)
    height, width = image_ops.decode_image(example["encoded"]).shape[:2]
    inner = np.array([height, width]) * min(64 / height, 32 / width)
    want = np.round(inner) / [64, 32]
    assert want.min() < 1.0
    batch = next(iter(training(folder, augment=chain, make_targets=targets)))
    np.testing.assert_allclose(batch["extent"], [want] * 2, rtol=1e-6)
    np.testing.assert_allclose(batch["targets"]["extent"], [want] * 2, rtol=1e-6)
    boxes = example["boxes"].numpy() * np.tile(want, 2)
    np.testing.assert_allclose(batch["boxes"][0, :2], boxes, rtol=1e-6)
    last = list(evaluation(folder, batch_size=2, preprocess=preprocessing))[-1]
    np.testing.assert_allclose(last["boxes"][0, :2], boxes, rtol=1e-6)
    # The filler image divides nothing by zero.
    np.testing.assert_allclose(last["extent"], [want, [1.0, 1.0]], rtol=1e-6)
