"""Training: the step, the loop, schedules, optimizers, checkpoints and log."""
