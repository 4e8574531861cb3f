"""A decoding step for pipelines that survives files it cannot decode.

The readers of MMAction2 raise errors of many kinds on damaged files, and one such file
ends a run. Here an unreadable file is reported, and another sample of the same dataset
takes its place.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import TRANSFORMS

from polynl_mm.datasets.decoding.counted_wrong import mark
from polynl_mm.datasets.decoding.decord_errors import UNFIT_WIDTH, explain_decord
from polynl_mm.file_names import NOT_UTF8, is_utf8, printable
from polynl_mm.user_errors import UserError, first_line

READER = re.compile(r"(Decord|OpenCV|PyAV|PIMS)Init")
DECODER = re.compile(
    r"(Decord|OpenCV|PyAV|PIMS|RawFrame|Array)Decode(MotionVector)?|DecodeInParts"
)
ELSEWHERE = "another rank cannot read its frames of it"
# So many unreadable draws in a row mean that the disk is gone, or the path is wrong.
MAX_DRAWS = 100
PICTURES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP"}


class UnreadableVideoError(UserError):
    """A file cannot be decoded.

    Args:
        path (str): The file.
        reason (str): Why, as part of a sentence.
    """

    def __init__(self, path: str, reason: str = ""):
        self.path, self.reason = path, reason
        super().__init__(f"{path} cannot be read: {reason}" if reason else path)


@dataclass
class Surroundings:
    """What a decoding step must know to replace samples; see :class:`BadVideosHook`.

    Attributes:
        dataset (Dataset): The dataset that the step reads for.
        before (list[Callable]): The steps before it in the dataset's pipeline.
        mark (bool): Whether a replaced sample has to count as wrong.
        seed (int): The seed of the run.
        epoch (torch.Tensor): The current epoch, in memory shared with data workers.
        reports (str): The file to which all unreadable files are appended.
    """

    dataset: object
    before: list[Callable]
    mark: bool
    seed: int
    epoch: torch.Tensor
    reports: str


@TRANSFORMS.register_module()
class SurvivingDecode:
    """The reading, sampling and decoding steps of a pipeline, surviving bad files.

    ``BadVideosHook`` puts it into the pipelines of a run, in place of the steps
    themselves. In a config it can be written out, too::

        dict(type='SurvivingDecode', steps=[
            dict(type='DecordInit'),
            dict(type='SampleFrames', clip_len=8, frame_interval=8, num_clips=1),
            dict(type='DecordDecode')])

    Without ``BadVideosHook`` nobody counts, so that a bad file is an error.

    Args:
        steps (Sequence[dict | Callable]): Steps of the pipeline, from the one that
            opens the file to the one that decodes it.
    """

    def __init__(self, steps: Sequence[dict | Callable]):
        if not steps:
            raise ValueError(
                "SurvivingDecode needs steps, such as [dict(type='DecordInit'), "
                "dict(type='SampleFrames', ...), dict(type='DecordDecode')]."
            )
        self.steps = [
            TRANSFORMS.build(step) if isinstance(step, dict) else step for step in steps
        ]
        self._surroundings: Surroundings | None = None
        self._reported: set[str] = set()

    def bind(self, surroundings: Surroundings) -> None:
        """Let the step replace samples, and report.

        Args:
            surroundings (Surroundings): Where the step stands.
        """
        self._surroundings = surroundings

    def __call__(self, results: dict) -> dict | None:
        """Decode a sample, or another one in its place.

        Args:
            results (dict): With ``filename`` or ``frame_dir``, as the dataset gives.

        Returns:
            dict | None: What the last step returns.

        Raises:
            UserError: If the file cannot be read and nobody counts such files, or no
                readable sample is found to replace it.
        """
        own = {
            key: results[key]
            for key in ("filename", "frame_dir", "label", "sample_idx")
            if key in results
        }
        # Of ranks that share a clip, another one has found the file, or so many
        # replacements, unreadable.
        draws = results.get("draws", 0)
        which = {key: results[key] for key in ("which_sample",) if key in results}
        try:
            if draws:
                raise UnreadableVideoError(file_of(results), ELSEWHERE)
            return self.decode(results)
        except UnreadableVideoError as error:
            if self._surroundings is None:
                raise UserError(
                    f"{error}. SurvivingDecode replaces such files where "
                    "custom_hooks=[dict(type='BadVideosHook')] counts them."
                ) from error
            if error.reason != ELSEWHERE:
                self._report(error)
            replacement = self._replacement(own["sample_idx"], error, draws, which)
        if self._surroundings.mark:
            replacement.update(own, label=mark(own.get("label", -1)))
        return replacement

    def decode(self, results: dict) -> dict | None:
        """Decode a sample.

        Args:
            results (dict): As for a call.

        Returns:
            dict | None: What the last step returns.

        Raises:
            UnreadableVideoError: If the file cannot be opened or decoded.
        """
        path = file_of(results)
        for step in self.steps:
            name = type(step).__name__
            if READER.fullmatch(name):
                results = _open(step, results, path)
            elif DECODER.fullmatch(name):
                results = _decode(step, results, path)
            else:
                results = step(results)
            if results is None:
                return None
        return results

    def _replacement(
        self, index: int, first: UnreadableVideoError, least: int, which: dict
    ) -> dict:
        around = self._surroundings
        # Neither the order of the samples nor the number of workers matters, and a
        # resumed run draws what an uninterrupted one would.
        draw = np.random.default_rng([around.seed, int(around.epoch), int(index)])
        for number in range(1, MAX_DRAWS + 1):
            other = int(draw.integers(len(around.dataset)))
            if other == index or number < least:
                continue
            results = {**around.dataset.get_data_info(other), **which}
            for step in around.before:
                results = step(results)
            try:
                results = self.decode(results)
            except UnreadableVideoError as error:
                self._report(error)
                continue
            if results is not None:
                results["draws"] = number
                return results
        raise NothingReadableError(
            f"{first}; and {MAX_DRAWS} samples drawn to replace it cannot be read "
            "either. Are the videos still there?"
        )

    def _report(self, error: UnreadableVideoError) -> None:
        if error.path in self._reported:
            return
        line = os.fsencode(f"{error.path}\t{error.reason}\n")
        try:
            file = os.open(
                self._surroundings.reports, os.O_WRONLY | os.O_CREAT | os.O_APPEND
            )
            try:
                os.write(file, line)  # one write, so that workers do not mix lines
            finally:
                os.close(file)
        except OSError as problem:
            raise NothingReadableError(
                f"{error}, and that could not be recorded in "
                f"{self._surroundings.reports}: {problem.strerror}."
            ) from problem
        self._reported.add(error.path)


def file_of(results: dict) -> str:
    """Return the path of a sample: its video, or its folder of frames."""
    return str(results.get("filename", results.get("frame_dir", "")))


class NothingReadableError(UserError):
    """No sample can be found to replace an unreadable one.

    torch raises a data worker's error again in the main process, with the worker's
    traceback as the message; of that the sentence alone is kept.
    """

    def __init__(self, message: str):
        super().__init__(str(message).rpartition("NothingReadableError: ")[2].strip())


def _open(step: Callable, results: dict, path: str) -> dict | None:
    if not is_utf8(path):
        raise UnreadableVideoError(printable(path), NOT_UTF8)
    with _quiet_stderr():
        try:
            if _is_local_decord(step):
                results = _open_with_decord(step, results, path)
            else:
                results = step(results)
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            raise UnreadableVideoError(path, _reason(path, error)) from error
    if results is None or "total_frames" not in results:
        return results
    if results["total_frames"] <= 0:
        raise UnreadableVideoError(path, "it has no frames")
    if results["total_frames"] == 1 and (kind := _picture(path)):
        raise UnreadableVideoError(path, f"it is a {kind} picture")
    return results


def _is_local_decord(step: Callable) -> bool:
    return type(step).__name__ == "DecordInit" and step.io_backend in ("disk", "local")


def _open_with_decord(step: Callable, results: dict, path: str) -> dict:
    """Do what DecordInit does, but let decord read the file itself.

    DecordInit gives decord 0.6.0 the file's bytes, and then some damaged files crash
    the process, which nothing can catch. Opened by path, the same files raise errors.
    """
    import decord

    if not os.path.splitext(path)[1]:
        path = f"{path}.mp4"  # as DecordInit does
    with open(path, "rb"):
        pass  # says better than decord why it cannot be opened
    reader = decord.VideoReader(path, num_threads=step.num_threads)
    results["total_frames"] = len(reader)
    results["video_reader"] = reader
    results["avg_fps"] = reader.get_avg_fps()
    return results


def _decode(step: Callable, results: dict, path: str) -> dict | None:
    wanted = np.size(results.get("frame_inds", ()))
    try:
        results = step(results)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableVideoError(path, _reason(path, error)) from error
    if results is None:
        return None
    frames = results.get("imgs")
    if type(step).__name__ == "DecordDecode" and any(
        np.shape(frame)[2:] != (3,) for frame in frames
    ):
        raise UnreadableVideoError(path, f"it {UNFIT_WIDTH}")
    if frames is not None and (
        len(frames) < wanted or any(np.size(frame) == 0 for frame in frames)
    ):
        raise UnreadableVideoError(
            path, f"{len(frames)} of the {wanted} frames wanted can be decoded"
        )
    return results


def _reason(path: str, error: Exception) -> str:
    """Say in a few words why a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, PermissionError):
        return "its permissions do not allow it"
    file = Path(path)
    with contextlib.suppress(OSError):
        if file.is_dir():
            return "it is a folder"
        if file.is_file() and file.stat().st_size == 0:
            return "it is empty"
    if kind := _picture(path):
        return f"it is a {kind} picture"
    if meaning := explain_decord(error, path):
        return f"it {meaning}"
    message = " ".join(re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", first_line(error)).split())
    damaged = "it is damaged, cut off or not a video"
    if message.startswith(("Error reading", "Check failed")):
        return damaged  # decord says no more that is of use
    return f"{damaged} ({message})"


def _picture(path: str) -> str | None:
    """Return what kind of picture a file is, or None if it is none."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError:
        return None
    return next(
        (kind for magic, kind in PICTURES.items() if start.startswith(magic)), None
    )


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep decord from writing the content of what is no video to the terminal."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # the process has no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
