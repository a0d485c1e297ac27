"""Taking a trained detector away: SavedModel, TFLite and ONNX, checked against it."""
