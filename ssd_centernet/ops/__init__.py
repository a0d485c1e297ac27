"""Pure functions on tensors: boxes, anchors, matching, losses, NMS, images. No gin, no Keras."""
