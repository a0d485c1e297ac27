"""The input of a training from other processes and machines, by TensorFlow's data service."""
