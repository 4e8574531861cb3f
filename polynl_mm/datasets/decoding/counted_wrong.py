"""Test samples that could not be read count as wrong.

Another sample goes through the model in the place of an unreadable one, and its
prediction must not be taken for one. Nothing but the label survives a pipeline as it
is, so the label carries the mark from the data worker to the main process, where it is
restored, and the prediction is made to contradict it.
"""

from collections.abc import Sequence
from typing import Any

import torch

# Far below any label.
MARK = -(2**40)


def mark(label: int) -> int:
    """Return a label that says "count this sample as wrong".

    Args:
        label (int): The sample's class; -1 where it has none.

    Returns:
        int: The marked label.
    """
    return int(label) + MARK


def restore_labels(data_samples: Sequence[Any]) -> list[int]:
    """Give marked samples their own labels back, in place.

    Args:
        data_samples (Sequence[ActionDataSample]): Of a batch.

    Returns:
        list[int]: The places in the batch of those that were marked.
    """
    marked = []
    for place, sample in enumerate(data_samples):
        label = sample.get("gt_label") if hasattr(sample, "get") else None
        if isinstance(label, torch.Tensor) and label.numel() == 1 and label < MARK // 2:
            sample.set_gt_label(label - MARK)
            marked.append(place)
    return marked


def contradict(data_sample: Any) -> None:
    """Replace the prediction of a sample by one that is wrong for any k < classes.

    Args:
        data_sample (ActionDataSample): With ``gt_label`` and what the model predicted;
            changed in place. Of a sample without a label (-1), all scores are equal.
    """
    label = int(data_sample.gt_label)
    scores = torch.ones_like(data_sample.pred_score)
    if label >= 0:
        scores[..., label] = 0
    data_sample.set_pred_score(scores / scores.sum(-1, keepdim=True))
    if "pred_label" in data_sample:
        data_sample.set_pred_label(scores.argmax(-1, keepdim=True).flatten())
