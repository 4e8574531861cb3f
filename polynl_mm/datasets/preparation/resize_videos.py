"""Makes videos small enough to decode fast: same frames, short side of 256 or 320."""

import argparse
import errno
import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from polynl_mm.atomic_files import write_json
from polynl_mm.datasets.isolated_workers import run_isolated
from polynl_mm.datasets.preparation.every_frame import DamagedVideoError
from polynl_mm.datasets.preparation.resized_video import (
    SUFFIX,
    ResizeParameters,
    resize_video,
)
from polynl_mm.datasets.preparation.video_files import find_videos
from polynl_mm.datasets.preparation.video_lists import write_text
from polynl_mm.file_names import printable
from polynl_mm.number_options import seconds
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError, first_line, user_errors

PARAMETERS_FILE = "resized.json"
FAILURES_FILE = "not_resized.txt"
SHOWN = 10
UNFINISHED = re.compile(r"\..+\.\d+-[0-9a-f]{6}\.part\.\w+")  # renamed_when_complete


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
            'Resizing videos needs PyAV, which is not installed: pip install "av>=15"'
        )
    source, target = Path(source), Path(target)
    found = find_videos(source)
    if not found.paths:
        raise UserError(
            " ".join([f"There are no videos below {source}.", *found.skipped()])
        )
    _check_target(source, target, parameters)
    _remove_unfinished(target)
    clashes, planned = _plan(source, target, found.paths, parameters)
    waiting = [job for job in planned if not _is_done(job)]
    counts = Counter(done=len(planned) - len(waiting))
    failures = dict(clashes)
    with tqdm(
        total=len(found.paths),
        initial=len(found.paths) - len(waiting),
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
    summary = _summarize(target, counts, failures) + found.skipped()
    return summary, not failures


def _check_target(source: Path, target: Path, parameters: ResizeParameters) -> None:
    inside, outside = target.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise UserError(
            f"{target} and {source} must be separate folders, neither inside the other."
        )
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give a folder to write to.")
    path, wanted = target / PARAMETERS_FILE, asdict(parameters)
    found = wanted
    if path.exists():
        try:
            found = parse_json(read_text(path, "record"), str(path))
        except json.JSONDecodeError as error:
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
    write_json(path, wanted)


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
    try:
        return job.target.stat().st_mtime_ns >= job.source.stat().st_mtime_ns
    except OSError:
        return False


def _remove_unfinished(target: Path) -> None:
    """Remove what killed processes left under way."""
    for folder, _, names in os.walk(target):
        for name in names:
            if UNFINISHED.fullmatch(name):
                Path(folder, name).unlink(missing_ok=True)


def _summarize(target: Path, counts: Counter, failures: dict[Path, str]) -> list[str]:
    summary = [
        f"{target}: {counts['resized']} videos resized, {counts['encoded']} small ones "
        f"encoded at their size, {counts['copied']} small H.264 files copied, "
        f"{counts['done']} were there already, {len(failures)} failed"
    ]
    lines = [
        f"{printable(path)}: {reason}" for path, reason in sorted(failures.items())
    ]
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
        description="Resize videos: all frames, upright, the same ratio and frame "
        "rate, H.264 in mp4 files, without sound. Those that are small enough keep "
        "their size, and are copied if they are such files already. An interrupted run "
        "goes on where it stopped; a video that fails is reported and makes the exit "
        "status 1.",
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
        type=seconds,
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
