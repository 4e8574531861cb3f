"""What MMEngine records of a short run."""

# Two epochs of five iterations, as MMEngine writes them.
SCALARS = [
    {"loss": 0.7, "time": 0.5, "epoch": 1, "iter": 2, "step": 2},
    {"loss": 0.6, "time": 1.0, "epoch": 1, "iter": 5, "step": 5},
    {"acc/top1": 0.55, "time": 9.0, "step": 1},
    {"loss": 0.5, "time": 2.0, "epoch": 2, "iter": 10, "step": 10},
    {"acc/top1": 0.95, "time": 9.0, "step": 2},
]
