"""COCO evaluation: ground truth, evaluator, result tables and a diagnosis of a zero AP."""
