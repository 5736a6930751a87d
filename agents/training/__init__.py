"""Running a training: the steps from start to end, callbacks, held-out evaluation, curves and pictures."""
