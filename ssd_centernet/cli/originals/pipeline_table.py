"""What pipeline configurations of the Object Detection API say, setting by setting."""

from typing import Any, NamedTuple


class Known(NamedTuple):
    """A setting of the file: the recipe's value, and the gin parameter for another one."""

    value: Any
    parameter: str | None = None


_NMS = "post_processing.batch_non_max_suppression"
_HEAD = "box_predictor.weight_shared_convolutional_box_predictor"
_ANCHORS = "anchor_generator.multiscale_anchor_generator"
_CROP = "train_config.data_augmentation_options.random_crop_image"
_FOCAL = "loss.classification_loss.weighted_sigmoid_focal"
_MATCHER = "matcher.argmax_matcher"
_HYPER = {
    "activation": Known("RELU_6"),
    "regularizer.l2_regularizer.weight": Known(4e-4),
    "batch_norm.scale": Known(True),
    "batch_norm.decay": Known(0.997),
    "batch_norm.epsilon": Known(1e-3),
}
SSD_MODEL = {
    "num_classes": Known(90),
    "inplace_batchnorm_update": Known(True),
    "freeze_batchnorm": Known(True),
    **{
        f"box_coder.faster_rcnn_box_coder.{name}_scale": Known(value)
        for name, value in (("y", 10.0), ("x", 10.0), ("height", 5.0), ("width", 5.0))
    },
    f"{_MATCHER}.matched_threshold": Known(0.5, "FocalMultiBoxLoss.matched_threshold"),
    f"{_MATCHER}.unmatched_threshold": Known(0.5),
    f"{_MATCHER}.ignore_thresholds": Known(False),
    f"{_MATCHER}.negatives_lower_than_unmatched": Known(True),
    f"{_MATCHER}.force_match_for_each_row": Known(True),
    f"{_MATCHER}.use_matmul_gather": Known(True),
    "similarity_calculator.iou_similarity": Known(True),
    "encode_background_as_zeros": Known(True),
    f"{_ANCHORS}.min_level": Known(3),
    f"{_ANCHORS}.max_level": Known(7),
    f"{_ANCHORS}.anchor_scale": Known(4.0, "MultiscaleAnchors.anchor_scale"),
    f"{_ANCHORS}.aspect_ratios": Known([1.0, 2.0, 0.5], "MultiscaleAnchors.aspect_ratios"),
    f"{_ANCHORS}.scales_per_octave": Known(2, "MultiscaleAnchors.scales_per_octave"),
    "image_resizer.fixed_shape_resizer": Known([320, 320], "IMAGE_SIZE"),
    f"{_HEAD}.depth": Known(256, "SharedSSDHead.width"),
    f"{_HEAD}.num_layers_before_predictor": Known(4, "SharedSSDHead.depth"),
    f"{_HEAD}.class_prediction_bias_init": Known(-4.6, "SharedSSDHead.class_bias"),
    f"{_HEAD}.kernel_size": Known(3),
    f"{_HEAD}.conv_hyperparams.initializer.random_normal_initializer.stddev": Known(
        0.01, "SharedSSDHead.kernel_stddev"
    ),
    f"{_HEAD}.conv_hyperparams.initializer.random_normal_initializer.mean": Known(0.0),
    **{f"{_HEAD}.conv_hyperparams.{name}": known for name, known in _HYPER.items()},
    "feature_extractor.type": Known("ssd_resnet50_v1_fpn"),
    "feature_extractor.fpn.min_level": Known(3),
    "feature_extractor.fpn.max_level": Known(7),
    "feature_extractor.min_depth": Known(16),
    "feature_extractor.depth_multiplier": Known(1.0),
    "feature_extractor.override_base_feature_extractor_hyperparams": Known(True),
    "feature_extractor.conv_hyperparams.initializer.truncated_normal_initializer.stddev": Known(
        0.03
    ),
    "feature_extractor.conv_hyperparams.initializer.truncated_normal_initializer.mean": Known(0.0),
    **{
        f"feature_extractor.conv_hyperparams.{name}": known
        for name, known in {
            **_HYPER,
            "regularizer.l2_regularizer.weight": Known(4e-4, "train.weight_decay"),
        }.items()
    },
    f"{_FOCAL}.alpha": Known(0.25, "FocalMultiBoxLoss.alpha"),
    f"{_FOCAL}.gamma": Known(2.0, "FocalMultiBoxLoss.gamma"),
    "loss.localization_loss.weighted_smooth_l1": Known(True),
    "loss.classification_weight": Known(1.0, "FocalMultiBoxLoss.class_loss_weight"),
    "loss.localization_weight": Known(1.0, "FocalMultiBoxLoss.box_loss_weight"),
    "normalize_loss_by_num_matches": Known(True),
    "normalize_loc_loss_by_codesize": Known(True),
    f"{_NMS}.score_threshold": Known(1e-8, "SigmoidSSDDecoder.score_threshold"),
    f"{_NMS}.iou_threshold": Known(0.6, "SigmoidSSDDecoder.iou_threshold"),
    f"{_NMS}.max_detections_per_class": Known(100, "SigmoidSSDDecoder.max_per_class"),
    f"{_NMS}.max_total_detections": Known(100, "SigmoidSSDDecoder.max_detections"),
    "post_processing.score_converter": Known("SIGMOID"),
}
_TASK, _CENTER = "object_detection_task", "object_center_params"
CENTERNET_MODEL = {
    "num_classes": Known(90),
    "feature_extractor.type": Known("resnet_v1_101_fpn"),
    "image_resizer.keep_aspect_ratio_resizer": Known([512, 512], "IMAGE_SIZE"),
    f"{_TASK}.task_loss_weight": Known(1.0),
    f"{_TASK}.offset_loss_weight": Known(1.0, "CenterNetLoss.offset_loss_weight"),
    f"{_TASK}.scale_loss_weight": Known(0.1, "CenterNetLoss.size_loss_weight"),
    f"{_TASK}.localization_loss.l1_localization_loss": Known(True),
    f"{_CENTER}.object_center_loss_weight": Known(1.0, "CenterNetLoss.center_loss_weight"),
    f"{_CENTER}.min_box_overlap_iou": Known(0.7, "CenterNetLoss.min_overlap"),
    f"{_CENTER}.max_box_predictions": Known(100, "CenterNetDecoder.max_detections"),
    f"{_CENTER}.classification_loss.penalty_reduced_logistic_focal_loss.alpha": Known(2.0),
    f"{_CENTER}.classification_loss.penalty_reduced_logistic_focal_loss.beta": Known(4.0),
}
COMMON = {
    "train_config.data_augmentation_options.random_horizontal_flip": Known(True),
    "train_config.max_number_of_boxes": Known(100, "training_batches.max_boxes"),
    "train_config.unpad_groundtruth_tensors": Known(False),
    "train_config.optimizer.use_moving_average": Known(False),
    "train_config.fine_tune_checkpoint_version": Known("V2"),
    "train_config.sync_replicas": Known(True),
    "train_config.startup_delay_steps": Known(0),
    "train_config.replicas_to_aggregate": Known(8),
    "eval_config.metrics_set": Known("coco_detection_metrics"),
    "eval_config.use_moving_averages": Known(False),
    "eval_config.num_examples": Known(8000),  # The original has no use for it either.
    "eval_config.batch_size": Known(1),
    "eval_input_reader.shuffle": Known(False),
    "eval_input_reader.num_readers": Known(1),
    "eval_input_reader.num_epochs": Known(1),
}
SSD_TRAIN = {
    f"{_CROP}.min_object_covered": Known(0.0, "SSDFPNAugment.min_object_covered"),
    f"{_CROP}.aspect_ratios": Known([0.75, 3.0], "SSDFPNAugment.aspect_ratios"),
    f"{_CROP}.areas": Known([0.75, 1.0], "SSDFPNAugment.areas"),
    f"{_CROP}.overlap_thresh": Known(0.0, "SSDFPNAugment.min_overlap"),
    "train_config.optimizer.momentum_optimizer.momentum_optimizer_value": Known(
        0.9, "Momentum.momentum"
    ),
}
_ADJUSTED = ("hue", "contrast", "saturation", "brightness")
_PAD = "train_config.data_augmentation_options.random_absolute_pad_image"
CENTERNET_TRAIN = {
    f"{_CROP}.aspect_ratios": Known([0.5, 1.7], "CropPadAugment.aspect_ratios"),
    f"{_CROP}.areas": Known([0.1, 1.0], "CropPadAugment.areas"),
    f"{_CROP}.random_coef": Known(0.25),
    **{
        f"train_config.data_augmentation_options.random_adjust_{name}": Known(True)
        for name in _ADJUSTED
    },
    f"{_PAD}.max_height_padding": Known(200, "CropPadAugment.max_padding"),
    f"{_PAD}.max_width_padding": Known(200),
    f"{_PAD}.pad_color": Known([0, 0, 0]),
    "train_config.optimizer.adam_optimizer.epsilon": Known(1e-7),
}
