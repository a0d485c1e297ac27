"""Pipeline configurations of the Object Detection API with the published settings, tersely."""

_HYPER = (
    "conv_hyperparams {{ activation: RELU_6, regularizer {{ l2_regularizer {{ weight: 0.0004 }} }}"
    " initializer {{ {0} {{ stddev: {1} mean: 0.0 }} }}"
    " batch_norm {{ scale: true, decay: 0.997, epsilon: 0.001, }} }}"
)
SSD = """
# Settings of SSD320 on 8 devices.
model { ssd {
  inplace_batchnorm_update: true freeze_batchnorm: true num_classes: 90
  box_coder { faster_rcnn_box_coder {
    y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0 } }
  matcher { argmax_matcher { matched_threshold: 0.5 unmatched_threshold: 0.5
    ignore_thresholds: false negatives_lower_than_unmatched: true
    force_match_for_each_row: true use_matmul_gather: true } }
  similarity_calculator { iou_similarity { } }
  encode_background_as_zeros: true
  anchor_generator { multiscale_anchor_generator { min_level: 3 max_level: 7 anchor_scale: 4.0
    aspect_ratios: [1.0, 2.0, 0.5] scales_per_octave: 2 } }
  image_resizer { fixed_shape_resizer { height: 320 width: 320 } }
  box_predictor { weight_shared_convolutional_box_predictor {
    depth: 256 class_prediction_bias_init: -4.6 num_layers_before_predictor: 4 kernel_size: 3
    HEAD } }
  feature_extractor { type: 'ssd_resnet50_v1_fpn' fpn { min_level: 3 max_level: 7 }
    min_depth: 16 depth_multiplier: 1.0 EXTRACTOR
    override_base_feature_extractor_hyperparams: true }
  loss { classification_loss { weighted_sigmoid_focal { alpha: 0.25 gamma: 2.0 } }
    localization_loss { weighted_smooth_l1 { } }
    classification_weight: 1.0 localization_weight: 1.0 }
  normalize_loss_by_num_matches: true normalize_loc_loss_by_codesize: true
  post_processing { batch_non_max_suppression { score_threshold: 1e-8 iou_threshold: 0.6
    max_detections_per_class: 100 max_total_detections: 100 } score_converter: SIGMOID }
} }
train_config: {
  fine_tune_checkpoint: "WEIGHTS/model.ckpt" fine_tune_checkpoint_type: "classification"
  batch_size: 32
  sync_replicas: true startup_delay_steps: 0 replicas_to_aggregate: 8 num_steps: 12500
  data_augmentation_options { random_horizontal_flip { } }
  data_augmentation_options { random_crop_image { min_object_covered: 0.0 min_aspect_ratio: 0.75
    max_aspect_ratio: 3.0 min_area: 0.75 max_area: 1.0 overlap_thresh: 0.0 } }
  optimizer { momentum_optimizer: { learning_rate: { cosine_decay_learning_rate {
      learning_rate_base: .16000000000000000000 total_steps: 12500
      warmup_learning_rate: .06933120000000000000 warmup_steps: 1000 } }
    momentum_optimizer_value: 0.9 } use_moving_average: false }
  max_number_of_boxes: 100 unpad_groundtruth_tensors: false
}
train_input_reader: { tf_record_input_reader { input_path: "RECORDS/*train*" }
  label_map_path: "RECORDS/../mscoco_label_map.pbtxt" }
eval_config: { metrics_set: "coco_detection_metrics" use_moving_averages: false num_examples: 8000 }
eval_input_reader: { tf_record_input_reader { input_path: "RECORDS/*val*" }
  label_map_path: "RECORDS/../mscoco_label_map.pbtxt" shuffle: false num_readers: 1 }
""".replace("HEAD", _HYPER.format("random_normal_initializer", 0.01)).replace(
    "EXTRACTOR", _HYPER.format("truncated_normal_initializer", 0.03)
)
CENTERNET = """
model { center_net {
  num_classes: 90 feature_extractor { type: "resnet_v1_101_fpn" }
  image_resizer { keep_aspect_ratio_resizer {
    min_dimension: 512 max_dimension: 512 pad_to_max_dimension: true } }
  object_detection_task { task_loss_weight: 1.0 offset_loss_weight: 1.0 scale_loss_weight: 0.1
    localization_loss { l1_localization_loss { } } }
  object_center_params { object_center_loss_weight: 1.0 min_box_overlap_iou: 0.7
    max_box_predictions: 100
    classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2.0 beta: 4.0 } } }
} }
train_config: {
  batch_size: 16 num_steps: 140000
  data_augmentation_options { random_horizontal_flip { } }
  data_augmentation_options { random_crop_image {
    min_aspect_ratio: 0.5 max_aspect_ratio: 1.7 random_coef: 0.25 } }
  data_augmentation_options { random_adjust_hue { } }
  data_augmentation_options { random_adjust_contrast { } }
  data_augmentation_options { random_adjust_saturation { } }
  data_augmentation_options { random_adjust_brightness { } }
  data_augmentation_options { random_absolute_pad_image {
    max_height_padding: 200 max_width_padding: 200 pad_color: [0, 0, 0] } }
  optimizer { adam_optimizer: { epsilon: 1e-7  # Keras' default.
    learning_rate: { manual_step_learning_rate { initial_learning_rate: 1e-3
      schedule { step: 90000 learning_rate: 1e-4 }
      schedule { step: 120000 learning_rate: 1e-5 } } } } use_moving_average: false }
  max_number_of_boxes: 100 unpad_groundtruth_tensors: false
  fine_tune_checkpoint_version: V2 fine_tune_checkpoint: ""
  fine_tune_checkpoint_type: "classification"
}
train_input_reader: { label_map_path: "RECORDS/../mscoco_label_map.pbtxt"
  tf_record_input_reader { input_path: "RECORDS/coco_train.record-?????-of-00100" } }
eval_config: { metrics_set: "coco_detection_metrics" use_moving_averages: false batch_size: 1; }
eval_input_reader: { label_map_path: "RECORDS/../mscoco_label_map.pbtxt" shuffle: false
  num_epochs: 1
  tf_record_input_reader { input_path: "RECORDS/coco_val.record-?????-of-00010" } }
"""
