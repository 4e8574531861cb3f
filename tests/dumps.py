"""Dumps of predictions, as MMEngine's DumpResults writes them."""

from pathlib import Path

import mmengine
import torch


def write_dump(path, scores, labels, names=None) -> Path:
    """Write the predictions of a test; ``names`` are the videos."""
    samples = []
    for row, (score, label) in enumerate(zip(scores, labels, strict=True)):
        score = torch.tensor(score)
        sample = dict(
            pred_score=score,
            pred_label=score.argmax(0, keepdim=True),
            gt_label=torch.tensor([label]),
            img_shape=(256, 256),
        )
        if names:
            sample["filename"] = names[row]
        samples.append(sample)
    mmengine.dump(samples, str(path))
    return Path(path)
