"""Predicting on single videos, whatever their state, within bounded memory."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmengine.utils import import_modules_from_strings

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.recognizers.evaluation_pipelines import find_test_pipeline
from polynl_mm.recognizers.model_match import check_complete
from polynl_mm.stack.safe_checkpoints import check_exists
from polynl_mm.stack.testing_views import bound_testing_views
from polynl_mm.user_errors import UserError, first_line

READERS = ("DecordInit", "OpenCVInit", "PyAVInit")
# The decoders report every damaged packet; our note says it once. -8 is libav's QUIET.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
DECODERS = ("DecordDecode", "OpenCVDecode", "PyAVDecode")


class UnreadableVideoError(UserError):
    """No frame of a video can be read."""


@dataclass
class Prediction:
    """What a recognizer says about a video.

    Attributes:
        video (str): The file.
        classes (list[int]): The most probable classes, best first.
        labels (list[str]): Their names, or their numbers as text.
        probabilities (list[float]): From 0 to 1.
        note (str): What is to know about the file, such as damage; mostly empty.
    """

    video: str
    classes: list[int]
    labels: list[str]
    probabilities: list[float]
    note: str = ""

    def lines(self) -> list[str]:
        """Return one line of text per class."""
        return [
            f"{probability:7.2%}  {label}"
            for label, probability in zip(self.labels, self.probabilities, strict=True)
        ]


class Predictor:
    """A recognizer with the weights of a checkpoint, for single videos.

    Args:
        cfg (mmengine.Config): A config with ``model`` and a pipeline for testing.
        checkpoint (str): Its weights: a path or an address.
        device (str): Where to compute, such as ``"cpu"`` or ``"cuda:0"``.
        labels (list[str] | None): The names of the classes.
        config_name (str): What to call the config in errors.

    Raises:
        UserError: If the checkpoint is not of this model, or the config cannot read
            videos.
    """

    def __init__(self, cfg, checkpoint: str, device: str, labels=None, config_name=""):
        from mmaction.registry import MODELS
        from mmaction.utils import register_all_modules

        check_exists(checkpoint)
        if cfg.get("custom_imports"):
            import_modules_from_strings(**cfg.custom_imports)
        register_all_modules(init_default_scope=False)
        init_default_scope(cfg.get("default_scope") or "mmaction")
        self._steps = split_pipeline(find_test_pipeline(cfg), config_name)
        self.labels = labels
        model_cfg = cfg.model.copy()
        if cfg.get("data_preprocessor"):
            model_cfg.setdefault("data_preprocessor", cfg.data_preprocessor)
        model = MODELS.build(model_cfg)
        self._check_labels(model, labels)
        if hasattr(getattr(model, "cls_head", None), "average_clips"):
            # Configs may average scores or not at all; probabilities are printed.
            model.cls_head.average_clips = "prob"
        loaded = CheckpointLoader.load_checkpoint(checkpoint, "cpu", logger="silent")
        check_complete(model, loaded, config_name, checkpoint)
        weights = loaded.get("state_dict", loaded)
        model.load_state_dict(
            {key.removeprefix("module."): value for key, value in weights.items()},
            strict=False,
        )
        self.model = model.to(device).eval()
        bound_testing_views(self.model)

    def predict(self, video: str, top_k: int = 5) -> Prediction:
        """Predict the classes of a video.

        A damaged video is predicted from the frames that can be read.

        Args:
            video (str): The file.
            top_k (int): How many classes to return.

        Returns:
            Prediction: The most probable classes.

        Raises:
            UserError: If the file does not exist or no frame of it can be read.
        """
        *steps, rest = self._steps
        sample, note = decode(video, *steps)
        sample = Compose(rest)(sample)
        with torch.inference_mode():
            result = self.model.test_step(pseudo_collate([sample]))[0]
        scores = _scores(result).float().cpu()
        if not scores.isfinite().all():
            raise UserError(
                f"{video}: the network gives scores that are no finite numbers, which "
                "name no class; its weights or this video's features overflow."
            )
        probabilities, classes = scores.topk(min(top_k, len(scores)))
        return Prediction(
            video=str(video),
            classes=classes.tolist(),
            labels=[self._label(index) for index in classes.tolist()],
            probabilities=probabilities.tolist(),
            note=note,
        )

    @staticmethod
    def _check_labels(model, labels: list[str] | None) -> None:
        classes = getattr(getattr(model, "cls_head", None), "num_classes", None)
        if labels is not None and classes is not None and len(labels) != classes:
            raise UserError(
                f"The file of labels names {len(labels)} classes, but the model has "
                f"{classes}; one name on each line is needed."
            )

    def _label(self, index: int) -> str:
        return str(index) if self.labels is None else self.labels[index]


def decode(video: str, reader: dict, sampler: list, decoder: dict) -> tuple[dict, str]:
    """Read the frames of a video that a pipeline samples.

    Args:
        video (str): The file.
        reader (dict): The step that opens it.
        sampler (list): The steps between.
        decoder (dict): The step that decodes.

    Returns:
        tuple[dict, str]: The sample, with ``imgs`` and ``frame_inds``, and what is to
        know about the file, mostly nothing.

    Raises:
        UserError: If the file does not exist or no frame of it can be read.
    """
    _check_video(video)
    _silence_decord()
    with _capture(video) as capture:
        if not capture.isOpened():
            # decord would print the content of a file that is no video.
            raise UnreadableVideoError(
                f"{video}: no frame can be read; it is damaged or not a video."
            )
    start = {"filename": str(video), "label": -1, "start_index": 0}
    start["modality"] = "RGB"
    try:
        return Compose([reader, *sampler, decoder])(dict(start)), ""
    except UserError:
        raise
    except Exception as error:
        # The readers raise errors of many kinds on damaged files. Reading the
        # frames in order, without seeking, gets at what there is.
        reason = first_line(error)
    readable, declared = count_readable_frames(video)
    if readable == 0:
        raise UnreadableVideoError(
            f"{video}: no frame can be read; it is damaged or not a video ({reason})."
        )
    sample = Compose(sampler)({**start, "total_frames": readable})
    frames = read_frames(video, np.asarray(sample["frame_inds"]).reshape(-1))
    sample["imgs"] = frames
    sample["original_shape"] = sample["img_shape"] = frames[0].shape[:2]
    note = f"{readable} of {declared} frames can be read; these were used"
    if readable >= declared:
        note = ""  # the reader's quirk, not the file's
    return sample, note


def count_readable_frames(video: str) -> tuple[int, int]:
    """Count the frames of a video that can be decoded in order.

    Args:
        video (str): The file.

    Returns:
        tuple[int, int]: How many were read, and how many the file declares.
    """
    with _capture(video) as capture:
        declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        readable = 0
        while capture.grab():
            readable += 1
    return readable, max(declared, readable)


def read_frames(video: str, indices: np.ndarray) -> list[np.ndarray]:
    """Read chosen frames of a video by decoding it in order.

    Args:
        video (str): The file.
        indices (np.ndarray): Frame numbers from 0, in any order, repeats allowed.

    Returns:
        list[np.ndarray]: RGB frames of shape (H, W, 3), in the order of ``indices``;
        the nearest readable one of those asked for in place of an unreadable one.

    Raises:
        UnreadableVideoError: If none of the frames can be read.
    """
    wanted = {int(index) for index in indices}
    kept = {}
    with _capture(video) as capture:
        for index in range(max(wanted) + 1):
            if not capture.grab():
                break
            if index in wanted:
                read, frame = capture.retrieve()
                if read:
                    kept[index] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if not kept:
        raise UnreadableVideoError(f"{video}: none of the frames needed can be read.")
    return [kept[min(kept, key=lambda k: abs(k - int(i)))] for i in indices]


def write_annotated(
    video: str, prediction: Prediction, folder: str, taken: Collection[Path] = ()
) -> Path:
    """Write a copy of a video with the predicted classes drawn on it.

    Args:
        video (str): The file.
        prediction (Prediction): What to draw.
        folder (str): Where the copy goes, as ``NAME_predicted.mp4``.
        taken (Collection[Path]): Copies not to write over, those of other videos of
            the same name; the copy is then ``NAME_predicted_2.mp4`` and so on.

    Returns:
        Path: The copy.

    Raises:
        UserError: If no frame can be read, or no mp4 can be written.
    """
    suffix = Path(video).suffix.lstrip(".")
    stem = Path(video).stem + ("" if suffix == "mp4" else f"_{suffix}")
    target, number = Path(folder) / f"{stem}_predicted.mp4", 1
    while target in taken:
        number += 1
        target = target.with_name(f"{stem}_predicted_{number}.mp4")
    with _capture(video) as capture, renamed_when_complete(target) as partial:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps < 1000 else 25.0
        writer = None
        try:
            while True:
                read, frame = capture.read()
                if not read:
                    break
                if writer is None:
                    writer = _open_writer(partial, fps, frame.shape[1::-1])
                writer.write(_draw(frame, prediction.lines()))
        finally:
            if writer is not None:
                writer.release()
        if writer is None:
            raise UnreadableVideoError(f"{video}: no frame can be read to annotate.")
        # OpenCV says nothing when the disk is full.
        with _capture(str(partial)) as written:
            if not written.isOpened():
                raise UserError(f"{target} cannot be written whole; is the disk full?")
    return target


def split_pipeline(pipeline: list[dict] | None, config_name: str) -> tuple:
    """Split a pipeline where it reads a video's frames.

    Args:
        pipeline (list[dict] | None): Its steps.
        config_name (str): The config, for the sentence.

    Returns:
        tuple: The step that opens the file, the list of those that sample, the step
        that decodes, and the list of the rest.

    Raises:
        UserError: If it does not read videos.
    """
    pipeline = pipeline or []
    kinds = [str(step.get("type")).split(".")[-1] for step in pipeline]
    readers = [i for i, kind in enumerate(kinds) if kind in READERS]
    decoders = [i for i, kind in enumerate(kinds) if kind in DECODERS]
    if not readers or not decoders:
        raise UserError(
            f"The test pipeline of {config_name} does not read videos; it needs one of "
            f"{', '.join(READERS)} and one of {', '.join(DECODERS)}."
        )
    first, second = readers[0], decoders[0]
    between = pipeline[first + 1 : second]
    return pipeline[first], between, pipeline[second], pipeline[second + 1 :]


def _silence_decord() -> None:
    with suppress(ImportError):  # another reader may be in use
        import decord

        decord.logging.set_level(decord.logging.QUIET)


def _check_video(video: str) -> None:
    path = Path(video)
    if path.is_dir():
        raise UserError(f"{video} is a folder; give the video files in it.")
    if not path.is_file():
        raise UserError(f"The video {video} does not exist.")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(f"{video}: no frame can be read; the file is empty.")


def _scores(result) -> torch.Tensor:
    if hasattr(result, "pred_score"):
        return result.pred_score
    return result.pred_scores.item  # MMAction2 before 1.2


@contextmanager
def _capture(video: str) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(video))
    try:
        yield capture
    except cv2.error as error:
        raise UnreadableVideoError(
            f"{video}: OpenCV cannot decode it; it is damaged or not a video "
            f"({first_line(error)})."
        ) from error
    finally:
        capture.release()


def _open_writer(path: Path, fps: float, size: tuple) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise UserError(
            f"OpenCV cannot write mp4 files here ({path.parent}); leave --out-dir out."
        )
    return writer


def _draw(frame: np.ndarray, lines: list[str]) -> np.ndarray:
    height, width = frame.shape[:2]
    longest = max(len(line) for line in lines)
    # Hershey characters are about 18 pixels wide and 30 high at scale 1.
    scale = min(width / (18 * (longest + 2)), height / (32 * (len(lines) + 1)), 1.2)
    thickness = max(1, round(2 * scale))
    for number, line in enumerate(lines, start=1):
        where = (round(12 * scale), round(32 * scale * number))
        for colour, extra in (((0, 0, 0), 2), ((255, 255, 255), 0)):
            cv2.putText(
                frame,
                line.encode("ascii", "replace").decode(),
                where,
                cv2.FONT_HERSHEY_SIMPLEX,
                scale,
                colour,
                thickness + extra,
                cv2.LINE_AA,
            )
    return frame
