"""Published CenterNets and backbones: networks of the originals' programs give the same outputs."""

import importlib

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.necks import CenterNetFPN
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.hourglass import Hourglass
from ssd_centernet.models.backbones.model_garden import ModelGardenBackbone
from ssd_centernet.models.centernet import CenterNet
from ssd_centernet.weights import centernet_names, restore
from tests.weights import files

SIZE = (64, 64)
BLOCKS, WIDTHS = (2, 1, 2, 1), (4, 4, 6, 4)


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *SIZE, 3)).astype(np.float32)


def assert_close(left, right):
    left, right = np.asarray(left), np.asarray(right)
    assert np.std(right) > 0
    np.testing.assert_allclose(left, right, atol=1e-4 * np.abs(right).max())


def keras_resnet() -> keras.Model:
    """A narrow ResNet of Keras' own code."""
    module = importlib.import_module(keras.applications.ResNet50.__module__)

    def groups(features):
        for group, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), 2):
            stride = {"stride1": 1} if group == 2 else {}
            features = module.stack1(features, width, count, name=f"conv{group}", **stride)
        return features

    model = module.ResNet(
        groups,
        preact=False,
        use_bias=True,
        model_name="narrow",
        include_top=False,
        weights=None,
        input_shape=(*SIZE, 3),
    )
    # The stem has 64 channels whatever the groups have.
    files.randomize(model.variables, seed=1)
    return model


def our_resnet() -> BottleneckResNet:
    return BottleneckResNet(
        BLOCKS,
        widths=WIDTHS,
        activation="relu",
        use_bias=True,
        pool_padding="symmetric",
        norm_epsilon=1.001e-5,
        output_levels=(2, 3, 4, 5),
    )


def centernet_fpn(channels="BGR", num_classes=5) -> CenterNet:
    return CenterNet(
        our_resnet(),
        num_classes=num_classes,
        image_size=SIZE,
        neck=CenterNetFPN((8, 6, 4), output_width=4),
        preprocessing=Preprocessing(SIZE, std=(1.0,) * 3, scale=1.0, channels=channels),
    )


@pytest.fixture(scope="module")
def original() -> keras.Model:
    return keras_resnet()


def levels_of(original: keras.Model) -> list:
    names = [f"conv{g}_block{n}_out" for g, n in enumerate(BLOCKS, 2)]
    return [original.get_layer(name).output for name in names]


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_keras_h5_gives_equal_features(tmp_path, original, channels):
    original.save_weights(tmp_path / "resnet.h5")
    detector = centernet_fpn(channels)
    table = restore(detector, tmp_path / "resnet.h5")
    assert (table.kind, table.skipped) == ("classification", ())
    assert len(table.restored) == len(original.variables)
    # Keras' ImageNet weights read blue first.
    pixels = images()
    ours = detector.backbone(pixels if channels == "BGR" else pixels[..., ::-1])
    theirs = keras.Model(original.input, levels_of(original))(pixels)
    for level, want in zip("2345", theirs, strict=True):
        assert_close(ours[level], want)


def test_numbering_of_resnet_layers_is_that_of_keras(original):
    weighted = [layer.name for layer in original.layers if layer.weights]
    assert centernet_names.keras_resnet_layers(BLOCKS) == weighted


def top_down(original: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The one fine map that the Object Detection API makes of a ResNet, in Keras' layers."""
    resnet = keras.Model(original.input, levels_of(original))
    *finer, features = resnet(original.input)
    features = keras.layers.Conv2D(8, 1)(features)
    for level, width, after in zip(reversed(finer), (8, 6, 4), (6, 4, 4), strict=True):
        features = keras.layers.UpSampling2D(2)(features)
        features = features + keras.layers.Conv2D(width, 1)(level)
        features = keras.layers.Conv2D(after, 3, padding="same")(features)
        features = keras.layers.ReLU()(keras.layers.BatchNormalization()(features))
    model = keras.Model(original.input, features)
    files.randomize(model.variables, seed=2)
    return resnet, model


def test_object_detection_api_resnet_fpn(tmp_path, original):
    resnet, model = top_down(original)
    extractor, detector = tf.Module(), tf.Module()
    extractor._base_model, extractor._resnet_model = original, resnet
    extractor._feature_extractor_model = model
    detector._feature_extractor = extractor
    heads = {}
    for key, depth in (("object_center", 5), ("box/scale", 2), ("box/offset", 2)):
        head = keras.Sequential(
            [
                keras.layers.Conv2D(4, 3, padding="same", input_shape=(16, 16, 4)),
                keras.layers.ReLU(),
                keras.layers.Conv2D(depth, 1),
            ]
        )
        files.randomize(head.variables, seed=depth + len(key))
        heads[key] = [head]
    detector._prediction_head_dict = heads
    prefix = tf.train.Checkpoint(model=detector, step=tf.Variable(3)).save(str(tmp_path / "ckpt"))
    ours = centernet_fpn()
    table = restore(ours, prefix, kind="full")
    assert len(table.restored) == len(ours.variables)
    assert all("save_counter" in name or "step" in name for name in table.skipped)
    pixels = images(3)
    (outputs,) = ours(pixels)
    features = model(pixels)
    assert_close(outputs["center"], heads["object_center"][0](features))
    assert_close(outputs["size"], heads["box/scale"][0](features))
    assert_close(outputs["offset"], heads["box/offset"][0](features))
    # What fine-tuning from a classifier is saved as: the ResNet itself.
    prefix = tf.train.Checkpoint(feature_extractor=original).save(str(tmp_path / "base"))
    again = centernet_fpn()
    assert restore(again, prefix).kind == "classification"
    assert_close(again.backbone(pixels)["5"], resnet(pixels)[-1])


def hourglass(num_classes=90, **settings) -> CenterNet:
    return CenterNet(Hourglass(20, width=8), num_classes=num_classes, image_size=SIZE, **settings)


@pytest.fixture(scope="module")
def ours() -> CenterNet:
    return hourglass()


@pytest.fixture(scope="module")
def garden():
    """The Model Garden's CenterNet with a narrow Hourglass-20, and its own reader of others."""
    pytest.importorskip("official", reason="tf-models-official is not installed")
    from official.projects.centernet.common import registry_imports  # noqa: F401
    from official.projects.centernet.configs import backbones, centernet
    from official.projects.centernet.modeling import centernet_model
    from official.projects.centernet.modeling.heads import centernet_head
    from official.projects.centernet.modeling.layers import detection_generator
    from official.vision.modeling.backbones import factory

    settings = backbones.Hourglass(model_id=20, num_hourglasses=2, input_channel_dims=8)
    model = centernet.CenterNetModel(
        backbone=backbones.Backbone(type="hourglass", hourglass=settings)
    )
    task = centernet.CenterNetTask(model=model)
    norm = model.norm_activation
    norm.use_sync_bn = False
    backbone = factory.build_backbone(
        input_specs=keras.layers.InputSpec(shape=[None, *SIZE, 3]),
        backbone_config=model.backbone,
        norm_activation_config=norm,
    )
    head = centernet_head.CenterNetHead(
        input_specs=backbone.output_specs,
        task_outputs=task.get_output_length_dict(),
        input_levels=model.head.input_levels,
    )
    return centernet_model.CenterNetModel(
        backbone=backbone,
        head=head,
        detection_generator=detection_generator.CenterNetDetectionGenerator(),
    )


def assert_same_network(ours: CenterNet, theirs) -> None:
    pixels = images(4)
    raw = theirs.head(theirs.backbone(pixels, training=False), training=False)
    for stack, outputs in enumerate(ours(pixels)):
        assert_close(outputs["center"], raw["ct_heatmaps"][stack])
        assert_close(outputs["offset"], raw["ct_offset"][stack])
        assert_close(outputs["size"], raw["ct_size"][stack])


def test_model_garden_hourglass(tmp_path, garden, ours):
    files.randomize(garden.variables, seed=5)
    prefix = tf.train.Checkpoint(**garden.checkpoint_items).save(str(tmp_path / "ckpt"))
    table = restore(ours, prefix, kind="full")
    assert len(table.restored) == len(ours.variables) == 324
    assert_same_network(ours, garden)


def test_object_detection_api_hourglass(tmp_path, garden, ours):
    """Compared through the Model Garden's own converter of such checkpoints."""
    from official.projects.centernet.utils.checkpoints import load_weights, read_checkpoints

    rng = np.random.default_rng(6)
    tensors = {}
    for root, layer in (
        ("model/_feature_extractor/_network", ours.backbone),
        ("model/_prediction_head_dict", ours.head),
    ):
        names = centernet_names.OD_CENTERNET.of_part(layer)
        shapes = {v.name.removesuffix(":0"): v.shape for v in layer.variables}
        assert set(names) == set(shapes)
        for name, shape in shapes.items():
            tensors[f"{root}/{names[name]}"] = files.random_value(rng, shape)
    prefix = files.save_objects(tmp_path / "ckpt", tensors)
    weights, _ = read_checkpoints.get_ckpt_weights_as_dict(prefix)
    load_weights.load_weights_model(garden, weights, "hourglass104_512", "detection_2d")
    assert len(restore(ours, prefix, kind="full").restored) == 324
    assert_same_network(ours, garden)


def test_classes_of_coco_are_taken_from_its_90_ids(tmp_path, garden):
    files.randomize(garden.variables, seed=7)
    prefix = tf.train.Checkpoint(model=garden).save(str(tmp_path / "ckpt"))
    detector = hourglass(3, class_names=("toothbrush", "dragon", "person"))
    fresh = files.values(detector)
    table = restore(detector, prefix)
    assert {(known, count) for _, _, known, count in table.classes} == {(2, 3)}
    pixels = images(4)
    theirs = garden.head(garden.backbone(pixels, training=False), training=False)
    for stack, outputs in enumerate(detector(pixels)):
        # Ids count from 1: channel 89 is the toothbrush.
        want = theirs["ct_heatmaps"][stack].numpy()[..., [89, 0]]
        assert_close(outputs["center"].numpy()[..., [0, 2]], want)
        name = f"head/center{stack}/kernel"
        now = files.values(detector)[name]
        np.testing.assert_array_equal(now[..., 1], fresh[name][..., 1])


def test_backbones_of_the_model_garden(tmp_path):
    pytest.importorskip("official", reason="tf-models-official is not installed")
    from official.vision.configs import backbones, common
    from official.vision.modeling.backbones import factory

    config = backbones.Backbone(type="mobilenet")
    config.mobilenet.override({"model_id": "MobileNetV3Small", "filter_size_scale": 0.5})
    theirs = factory.build_backbone(
        keras.layers.InputSpec(shape=(None, *SIZE, 3)), config, common.NormActivation()
    )
    files.randomize(theirs.variables, seed=8)
    prefix = tf.train.Checkpoint(backbone=theirs).save(str(tmp_path / "ckpt"))
    backbone = ModelGardenBackbone("mobilenet", options=config.mobilenet.as_dict())
    detector = CenterNet(
        backbone, num_classes=2, image_size=SIZE, neck=CenterNetFPN((8, 8), output_width=8)
    )
    table = restore(detector, prefix)
    assert (table.kind, table.convention) == ("classification", "TensorFlow Model Garden")
    assert len(table.restored) == len(backbone.variables) < len(theirs.variables)
    pixels = images(8)
    want = theirs(pixels, training=False)
    for level, features in backbone(pixels, training=False).items():
        assert_close(features, want[level])
