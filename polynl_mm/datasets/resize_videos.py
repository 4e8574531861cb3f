"""Makes videos small enough to decode fast: same frames, short side of 256 or 320."""

import argparse
import errno
import importlib.util
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from tqdm import tqdm

from polynl_mm.datasets.isolated_workers import run_isolated
from polynl_mm.datasets.video_files import counts_frames, find_cut, find_videos
from polynl_mm.datasets.video_lists import write_text
from polynl_mm.runtime.atomic_files import renamed_when_complete, write_json
from polynl_mm.runtime.user_errors import UserError, first_line, user_errors

PARAMETERS_FILE = "resized.json"
FAILURES_FILE = "not_resized.txt"
SUFFIX = ".mp4"
DEFAULT_RATE = Fraction(25)  # of files that do not say theirs
# As in check_videos: some containers count frames that cannot be decoded.
LEAST_SHARE = 0.9
SHOWN = 10
UNFINISHED = re.compile(r"\..+\.\d+-[0-9a-f]{6}\.part\.\w+")  # renamed_when_complete


class DamagedVideoError(Exception):
    """A video cannot be read, or not to its end."""


@dataclass(frozen=True)
class ResizeParameters:
    """Everything that decides what the resized videos look like.

    Args:
        short_side (int): Height or width in pixels, whichever is smaller: even, from
            32 on.
        crf (int): Quality of the H.264 encoder, from 0 (lossless) to 51 (worst).
        keyframe_interval (int): At most so many frames from one key frame to the
            next: the fewer, the faster are jumps to a clip, and the larger the file.
        upscale (bool): Whether smaller videos are made larger.
        keep_damaged (bool): Whether of a damaged video the frames that can be decoded
            are kept.

    Raises:
        UserError: If a value is not in its range.
    """

    short_side: int = 256
    crf: int = 20
    keyframe_interval: int = 30
    upscale: bool = False
    keep_damaged: bool = False

    def __post_init__(self):
        if self.short_side < 32 or self.short_side % 2:
            raise UserError(
                "--short-side must be an even number from 32 on, such as 256 or 320, "
                f"not {self.short_side}."
            )
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf must be from 0 to 51, not {self.crf}.")
        if self.keyframe_interval < 1:
            raise UserError(
                f"--keyframe-interval must be 1 or more, not {self.keyframe_interval}."
            )


def target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the size of a resized video: even numbers of nearly the same ratio.

    Args:
        width (int): Of the source, in pixels.
        height (int): Of the source, in pixels.
        short_side (int): Of the result, in pixels, even.

    Returns:
        tuple[int, int]: Width and height of the result.
    """
    long_side = 2 * round(max(width, height) * short_side / min(width, height) / 2)
    return (short_side, long_side) if width < height else (long_side, short_side)


def resize_video(source: Path, target: Path, parameters: ResizeParameters) -> str:
    """Write a video with a short side of the wanted length, whole or not at all.

    All frames are kept, at the average frame rate of the source. Sound is dropped.
    A video that is small enough already is copied as it is, once it has been decoded
    to its end.

    Args:
        source (Path): The video.
        target (Path): What to write, ending in ``.mp4``; a copy keeps the suffix of
            its source.
        parameters (ResizeParameters): The size and quality.

    Returns:
        str: ``"resized"`` or ``"copied"``.

    Raises:
        DamagedVideoError: If the source cannot be read to its end; says why.
        OSError: If the target cannot be written.
    """
    import av

    try:
        if not os.path.getsize(source):
            raise DamagedVideoError("is an empty file")
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise DamagedVideoError("has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the workers are parallel
            width, height = stream.codec_context.width, stream.codec_context.height
            if min(width, height) < 1:
                raise DamagedVideoError("has no size")
            if min(width, height) <= parameters.short_side and not (
                parameters.upscale and min(width, height) < parameters.short_side
            ):
                for _ in _frames(source, container, stream, parameters.keep_damaged):
                    pass
                _copy(source, target.with_suffix(source.suffix))
                return "copied"
            size = target_size(width, height, parameters.short_side)
            frames = _frames(source, container, stream, parameters.keep_damaged)
            with renamed_when_complete(target) as unfinished:
                try:
                    _encode(frames, stream, unfinished, size, parameters)
                except av.FFmpegError as error:  # those of the source are caught
                    raise OSError(error.errno, error.strerror) from error
    except av.FFmpegError as error:
        reason = find_cut(source) or "is damaged or not a video"
        raise DamagedVideoError(reason) from error
    return "resized"


def _frames(source: Path, container, stream, keep_damaged: bool):
    """Yield the decoded frames, and raise at the end if some are missing."""
    import av

    count, failure = 0, ""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                count += 1
                yield frame
        except av.FFmpegError as error:
            failure = failure or (
                f"decoding fails after {count} frames: {first_line(error)}"
            )
            if not keep_damaged:
                break
    declared = stream.frames if counts_frames(source) else 0
    if not failure:
        cut = find_cut(source)
        if declared and count < LEAST_SHARE * declared:
            failure = f"has {count} of {declared} frames" + (f"; {cut}" if cut else "")
        elif cut and not declared:
            failure = cut
    if not count:
        raise DamagedVideoError(failure or "has no frames")
    if failure and not keep_damaged:
        raise DamagedVideoError(failure)


def _encode(
    frames, stream, target: Path, size: tuple[int, int], parameters: ResizeParameters
) -> None:
    import av

    rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
    width, height = size
    with av.open(str(target), "w", options={"movflags": "+faststart"}) as container:
        encoder = container.add_stream("libx264", rate=rate)
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.options = {"crf": str(parameters.crf), "preset": "medium"}
        context = encoder.codec_context
        context.gop_size = parameters.keyframe_interval
        context.thread_count = 1
        ratio = stream.codec_context.sample_aspect_ratio
        if ratio:
            context.sample_aspect_ratio = ratio
        for index, frame in enumerate(frames):
            resized = frame.reformat(
                width=width, height=height, format="yuv420p", interpolation="BICUBIC"
            )
            resized.pts, resized.time_base = index, 1 / Fraction(rate)
            resized.pict_type = av.video.frame.PictureType.NONE  # the encoder's choice
            container.mux(encoder.encode(resized))
        container.mux(encoder.encode(None))


def _copy(source: Path, target: Path) -> None:
    with renamed_when_complete(target) as unfinished:
        shutil.copyfile(source, unfinished)


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path
    parameters: ResizeParameters


def _run_job(job: _Job) -> tuple[str, str]:
    """Return what was done, or ``"failed"`` or ``"full"`` and why."""
    try:
        return resize_video(job.source, job.target, job.parameters), ""
    except DamagedVideoError as error:
        return "failed", str(error)
    except OSError as error:
        said = error.strerror or str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return "full" if full else "failed", f"cannot be read or written: {said}"


def resize_videos(
    source: str | Path,
    target: str | Path,
    parameters: ResizeParameters,
    *,
    jobs: int = 1,
    timeout: float = 1800.0,
) -> tuple[list[str], bool]:
    """Resize all videos below a folder into a tree of the same folders.

    Interrupted runs go on where they stopped. Videos that cannot be read are listed in
    ``not_resized.txt`` and do not stop the others. Run it once at a time in one folder.

    Args:
        source (str | Path): The folder.
        target (str | Path): The folder to write to, outside of it.
        parameters (ResizeParameters): The size and quality.
        jobs (int): Number of processes.
        timeout (float): Seconds that one video may take.

    Returns:
        tuple[list[str], bool]: A summary, one line each, and whether every video is
        there.

    Raises:
        UserError: If PyAV is not installed, or a folder cannot be used.
    """
    if importlib.util.find_spec("av") is None:
        raise UserError(
            'Resizing videos needs PyAV: pip install "polynl_mm[data]", or pip install '
            "av."
        )
    source, target = Path(source), Path(target)
    names = find_videos(source)
    if not names:
        raise UserError(f"There are no videos below {source}.")
    _check_target(source, target, parameters)
    _remove_unfinished(target)
    clashes, planned = _plan(source, target, names, parameters)
    waiting = [job for job in planned if not _is_done(job)]
    counts = Counter(done=len(planned) - len(waiting))
    failures = dict(clashes)
    with tqdm(
        total=len(names),
        initial=len(names) - len(waiting),
        desc="Videos",
        unit="video",
    ) as bar:
        for outcome in run_isolated(_run_job, waiting, jobs, timeout):
            done, reason = outcome.value or ("failed", outcome.failure)
            if done == "full":
                raise UserError(
                    f"{outcome.item.target} {reason}; the same command goes on from "
                    "here once there is room."
                )
            counts[done] += 1
            if done == "failed":
                failures[outcome.item.source] = reason
            bar.set_postfix(failed=len(failures), refresh=False)
            bar.update()
    _remove_unfinished(target)
    return _summarize(target, counts, failures), not failures


def _check_target(source: Path, target: Path, parameters: ResizeParameters) -> None:
    inside, outside = target.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise UserError(
            f"{target} and {source} must be separate folders, neither inside the other."
        )
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give a folder to write to.")
    path, wanted = target / PARAMETERS_FILE, asdict(parameters)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = wanted
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    if found != wanted:
        found = found if isinstance(found, dict) else {}
        different = ", ".join(
            f"{name} {found.get(name)!r} instead of {wanted[name]!r}"
            for name in wanted
            if found.get(name) != wanted[name]
        )
        raise UserError(
            f"{target} was made with {different or 'other parameters'}; give another "
            "folder, or delete it first."
        )
    try:
        write_json(path, wanted)
    except OSError as error:
        raise UserError(f"{target} cannot be written to: {error}") from error


def _plan(
    source: Path, target: Path, names: Sequence[str], parameters: ResizeParameters
) -> tuple[dict[Path, str], list[_Job]]:
    jobs, clashes = {}, {}
    for name in names:
        result = (target / name).with_suffix(SUFFIX)
        if result in jobs:
            clashes[source / name] = f"would be {result}, as {jobs[result].source}"
        else:
            jobs[result] = _Job(source / name, result, parameters)
    return clashes, list(jobs.values())


def _is_done(job: _Job) -> bool:
    """Return whether the result is there, and of the source as it is now."""
    for result in {job.target, job.target.with_suffix(job.source.suffix)}:
        try:
            if result.stat().st_mtime_ns >= job.source.stat().st_mtime_ns:
                return True
        except OSError:
            continue
    return False


def _remove_unfinished(target: Path) -> None:
    """Remove what killed processes left under way."""
    for folder, _, names in os.walk(target):
        for name in names:
            if UNFINISHED.fullmatch(name):
                Path(folder, name).unlink(missing_ok=True)


def _summarize(target: Path, counts: Counter, failures: dict[Path, str]) -> list[str]:
    summary = [
        f"{target}: {counts['resized']} videos resized, {counts['copied']} copied "
        f"because they are small enough, {counts['done']} were there already, "
        f"{len(failures)} failed"
    ]
    lines = [f"{path}: {reason}" for path, reason in sorted(failures.items())]
    summary += [f"  {line}" for line in lines[:SHOWN]]
    report = target / FAILURES_FILE
    if not lines:
        report.unlink(missing_ok=True)
        return summary
    if len(lines) > SHOWN:
        summary.append(f"  and {len(lines) - SHOWN} more")
    write_text(report, "".join(f"{line}\n" for line in lines))
    return [*summary, f"Failed videos, with reasons: {report}"]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/data/resize_videos.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    default = ResizeParameters()
    parser = argparse.ArgumentParser(
        description="Resize videos: all frames, the same ratio and frame rate, H.264 "
        "in mp4 files, without sound. Videos that are small enough are copied. An "
        "interrupted run goes on where it stopped; a video that fails is reported and "
        "makes the exit status 1.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="folder of videos")
    parser.add_argument("target", metavar="DST", help="folder to write to")
    parser.add_argument(
        "--short-side",
        type=int,
        default=default.short_side,
        metavar="PIXELS",
        help="the smaller of height and width, such as 256 or 320",
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--crf",
        type=int,
        default=default.crf,
        help="quality of the encoder, 0 (lossless) to 51",
    )
    parser.add_argument(
        "--keyframe-interval",
        type=int,
        default=default.keyframe_interval,
        metavar="FRAMES",
        help="fewer make jumps within a video faster, and files larger",
    )
    parser.add_argument(
        "--upscale", action="store_true", help="make smaller videos larger, too"
    )
    parser.add_argument(
        "--keep-damaged",
        action="store_true",
        help="of damaged videos keep the frames that can be decoded",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="a video that takes longer has failed",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Resize videos from the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Raises:
        SystemExit: With status 2 and one sentence if the arguments cannot work, 1 if
            a video could not be resized.
    """
    args = vars(parse_args(argv))
    source, target, jobs, timeout = (
        args.pop(key) for key in ("source", "target", "jobs", "timeout")
    )
    with user_errors():
        parameters = ResizeParameters(**args)
        run = partial(resize_videos, source, target, parameters)
        summary, complete = run(jobs=jobs, timeout=timeout)
    print("\n".join(summary))
    if not complete:
        raise SystemExit(1)
