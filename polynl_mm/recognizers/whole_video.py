"""A whole video as one clip, read in parts: the exact result within bounded memory."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn
from tqdm import tqdm

from polynl_mm.clip_parallel.summaries_of_parts import ReachedError, SummariesOfParts
from polynl_mm.clip_parallel.temporal_reach import temporal_reach
from polynl_mm.recognizers.clip_parts import ClipPart, parts_of
from polynl_mm.recognizers.command_line import PART_FRAMES
from polynl_mm.recognizers.frames_in_order import FramesInOrder
from polynl_mm.recognizers.prediction import Prediction, Predictor, finite_scores
from polynl_mm.recognizers.windows import WindowSampler
from polynl_mm.user_errors import UserError

# Whose pooling over space and time is a mean, which adds up over parts.
HEADS = ("I3DHead", "SlowFastHead")


class WholeVideoReader:
    """Scores whole videos with a recognizer, a part at a time.

    Args:
        predictor (Predictor): With a Recognizer3D. Its views must not be bounded.
        stride (int): Of the frames of a video, each ``stride``-th is used.
        part_frames (int): How many frames of the clip are a part's own; rounded up to
            what the backbone's temporal strides divide.

    Raises:
        UserError: If the recognizer cannot be read in parts.
    """

    def __init__(
        self, predictor: Predictor, stride: int = 1, part_frames: int = PART_FRAMES
    ):
        self.predictor, self.model = predictor, predictor.model
        self.stride, self.part_frames = stride, part_frames
        self.sampler = WindowSampler(predictor.steps)
        _check_model(self.model)

    def scores(self, video: str) -> tuple[Tensor, str]:
        """Return the scores of all frames of a video as one clip.

        Args:
            video (str): The file.

        Returns:
            tuple[Tensor, str]: One score per class; and a sentence if a part of the
            file only can be read, mostly empty.

        Raises:
            UserError: If no frame can be read, or a module mixes time in a way that is
                not known.
        """
        frames = FramesInOrder(video, self.sampler.reader, every=self.stride)
        count = -(-frames.count // self.stride)
        first = next(iter(frames), None)
        if first is None:
            raise UserError(f"{video}: no frame can be read.")
        packed = self._packed([self.sampler.shrunk_image(first.image)])
        reach = temporal_reach(
            self.model.backbone, packed["inputs"].shape[1], packed["inputs"].shape[-2:]
        )
        own = -(-self.part_frames // reach.stride) * reach.stride
        blocks = SummariesOfParts(self.model.backbone, reach.plugins)
        passes = [*blocks.passes, None]
        print(_announced(video, count, blocks.passes, own, reach.frames), flush=True)
        pooled = _PooledParts(reach.outputs)
        total = len(passes) * count or None
        with tqdm(total=total, desc="whole video", unit="frame") as bar:
            for wanted in passes:
                for part, sample in self._parts(frames, own, reach.frames):
                    with blocks.reading(wanted, part.own), suppress(ReachedError):
                        pooled.add(part, self._features(sample))
                    bar.update(part.last - part.first)
        with torch.inference_mode():
            result = self.model.cls_head.predict(
                pooled.features(), pseudo_collate([packed])["data_samples"]
            )
        return finite_scores(result[0], video), frames.note()

    def predict(self, video: str, top_k: int = 5) -> Prediction:
        """Predict the classes of a whole video.

        Args:
            video (str): The file.
            top_k (int): How many classes to return.

        Returns:
            Prediction: The most probable classes.

        Raises:
            UserError: As :meth:`scores`.
        """
        scores, note = self.scores(video)
        return self.predictor.named(scores, video, top_k, note)

    def _parts(self, frames, own: int, margin: int) -> Iterator[tuple[ClipPart, dict]]:
        images = (frame.image for frame in self.sampler.shrunk(frames))
        for part in parts_of(images, own, margin):
            yield part, self._packed(part.images)

    def _packed(self, images: list[np.ndarray]) -> dict:
        count = len(images)
        clip = {"frame_inds": np.arange(count), "clip_len": count, "num_clips": 1}
        clip |= {"frame_interval": self.stride, "total_frames": count}
        clip |= {"filename": "", "label": -1, "start_index": 0, "modality": "RGB"}
        return self.sampler.packed(clip, images)

    def _features(self, sample: dict):
        with torch.inference_mode():
            data = self.model.data_preprocessor(pseudo_collate([sample]), False)
            inputs = data["inputs"].flatten(0, 1)  # (views, C, T, H, W)
            return self.model.backbone(inputs)


def _announced(video: str, count: int, blocks: list[str], own: int, margin: int) -> str:
    passes = "one pass over them"
    if blocks:
        passes = f"{len(blocks) + 1} passes over them ({len(blocks)} for the blocks "
        passes += "that look over time, one for the head)"
    return (
        f"{video}: {count or 'an unknown number of'} frames, {passes}, in parts of "
        f"{own} frames and {margin} more on both sides."
    )


class _PooledParts:
    """The mean of the backbone's features over a clip, of which parts come in turn."""

    def __init__(self, strides: list[int]):
        self.strides = strides
        self.sums: list[Tensor] = []
        self.counts = [0] * len(strides)

    def add(self, part: ClipPart, features) -> None:
        """Add the features of a part that are its own."""
        self._several = isinstance(features, (tuple, list))
        features = features if self._several else [features]
        own = [
            x[:, :, part.own(stride)]
            for x, stride in zip(features, self.strides, strict=True)
        ]
        sums = [x.double().sum((2, 3, 4)) for x in own]  # (views, C)
        self._dtype = own[0].dtype
        before = self.sums or [0] * len(sums)
        self.sums = [a + b for a, b in zip(before, sums, strict=True)]
        for place, x in enumerate(own):
            self.counts[place] += x[0, 0].numel()

    def features(self):
        """Return what the head pools to the same as the features of the whole clip."""
        means = [
            (total / count).to(self._dtype)[..., None, None, None]
            for total, count in zip(self.sums, self.counts, strict=True)
        ]  # (views, C, 1, 1, 1)
        return tuple(means) if self._several else means[0]


def _check_model(model: nn.Module) -> None:
    """Refuse a recognizer that cannot be read in parts, by the name of its part."""
    from mmaction.models.recognizers import Recognizer3D

    kind = type(model).__name__
    if type(model).extract_feat is not Recognizer3D.extract_feat:
        raise UserError(f"--whole-video reads Recognizer3D, not {kind}.")
    if getattr(model, "with_neck", False):
        raise UserError(
            f"--whole-video has no way for the neck {type(model.neck).__name__}."
        )
    head = type(model.cls_head).__name__
    if head not in HEADS or getattr(model.cls_head, "avg_pool", None) is None:
        raise UserError(
            f"--whole-video needs a head that averages over space and time "
            f"({' or '.join(HEADS)}, spatial_type='avg'), not this {head}."
        )
