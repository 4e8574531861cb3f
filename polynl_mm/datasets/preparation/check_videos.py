"""Finds the videos of a list that training could not read, before it meets them.

Each file is decoded to its end as training does it, by decord, in a process of its
own: a file that crashes or stalls the decoder is one more line of the report.
"""

import argparse
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from polynl_mm.atomic_files import expect_outputs
from polynl_mm.datasets.decoding.decord_errors import explain_decord
from polynl_mm.datasets.isolated_workers import run_isolated
from polynl_mm.datasets.preparation.video_files import (
    check_folder,
    counts_frames,
    find_cut,
    find_loss,
)
from polynl_mm.datasets.preparation.video_lists import read_video_list, write_text
from polynl_mm.file_names import NOT_UTF8, is_utf8, utf8_name
from polynl_mm.number_options import seconds
from polynl_mm.text_files import expect_regular
from polynl_mm.user_errors import UserError, first_line, user_errors

PROBLEMS = ("missing", "unreadable", "truncated", "too short")
BATCH = 16  # frames decoded at once, as a clip is
SHOWN = 10


@dataclass(frozen=True)
class VideoState:
    """What decoding a video has shown.

    Attributes:
        problem (str): One of ``PROBLEMS``, or empty.
        reason (str): What exactly is wrong.
        frames (int): How many frames could be decoded.
        declared (int): How many the container counts; 0 if it does not.
        retry (bool): Whether another run may come to another result.
    """

    problem: str = ""
    reason: str = ""
    frames: int = 0
    declared: int = 0
    retry: bool = False


def check_video(path: str) -> VideoState:
    """Decode a video to its end.

    Args:
        path (str): The file.

    Returns:
        VideoState: Without a problem, unreadable, or truncated.
    """
    if os.path.isdir(path):
        return VideoState("unreadable", "is a folder")
    if not is_utf8(path):
        return VideoState("unreadable", NOT_UTF8)
    try:
        if os.path.getsize(path) == 0:
            return VideoState("unreadable", "is an empty file")
        cut, counted = find_cut(path), counts_frames(path)
    except OSError as error:
        return VideoState("unreadable", error.strerror or str(error))
    length, frames, failure = _decode(path)
    declared = _declared_frames(path) if counted and length else 0
    if failure:
        return VideoState(
            "truncated" if cut else "unreadable", cut or failure, frames, declared
        )
    loss = find_loss(path, frames, declared)
    return VideoState("truncated" if loss else "", loss, frames, declared)


def _decode(path: str) -> tuple[int, int, str]:
    """Return how many frames there should be, how many there are, and what failed."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(path, num_threads=1)
        length = len(reader)
    except Exception as error:
        return 0, 0, _what_decord_means(error, path)
    if not length:
        return 0, 0, "has no frames"
    frames = 0
    while frames < length:
        # In batches, as training reads: single frames hide what fails there.
        batch = range(frames, min(frames + BATCH, length))
        try:
            reader.get_batch(list(batch))
        except Exception as error:
            what = _what_decord_means(error, path)
            where = f"{batch.start} to {batch.stop - 1}"
            return length, frames, f"decoding frames {where} of {length} fails: {what}"
        frames = batch.stop
    return length, frames, ""


def _what_decord_means(error: Exception, path: str) -> str:
    said = str(error)
    if meaning := explain_decord(error, path):
        return meaning
    if "Error reading" in said:
        return "is damaged or not a video"
    # "[12:00:00] /path/of/its/source.cc:151: what it means"
    return first_line(ValueError(said.split(".cc:")[-1].partition(": ")[2] or said))


def _declared_frames(path: str) -> int:
    import cv2

    capture = cv2.VideoCapture(utf8_name(path))
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
    capture.release()
    return int(count) if count > 0 else 0


class Journal:
    """What was found out about each file so far, kept while the run goes on.

    A line is written as soon as a file is decoded, so that an interrupted run goes on
    where it stopped. A file that has changed since is decoded again.

    Args:
        path (Path): The file, of one JSON object per line.
        restart (bool): Forget what earlier runs found out.

    Raises:
        UserError: If it cannot be read or written.
    """

    def __init__(self, path: Path, restart: bool = False):
        self.path = path
        self._known: dict[tuple[str, int, int], VideoState] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if restart:
                path.unlink(missing_ok=True)
            self._read()
            self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
            # A killed run may have left half a line.
            self._file.write("\n" if path.stat().st_size else "")
        except OSError as error:
            raise UserError(f"The journal {path} cannot be used: {error}") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def _read(self) -> None:
        if not self.path.exists():
            return
        expect_regular(self.path, "journal")
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    key = record["path"], record["size"], record["changed"]
                    self._known[key] = VideoState(**record["state"])
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue  # half a line, or no line of ours: decode again

    def known(self, path: str) -> VideoState | None:
        """Return what is known about a file as it is now, or None.

        Args:
            path (str): The file.
        """
        key = self._key(path)
        state = self._known.get(key) if key else None
        return None if state is None or state.retry else state

    def add(self, path: str, state: VideoState) -> None:
        """Write down what was found out about a file.

        Args:
            path (str): The file.
            state (VideoState): What was found out.

        Raises:
            UserError: If it cannot be written.
        """
        key = self._key(path)
        if key is None:
            return
        record = {"path": key[0], "size": key[1], "changed": key[2]}
        try:
            self._file.write(json.dumps({**record, "state": asdict(state)}) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"The journal {self.path}: {error}") from error

    @staticmethod
    def _key(path: str) -> tuple[str, int, int] | None:
        try:
            stat = os.stat(path)
        except OSError:
            return None
        return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


def check_files(
    paths: Sequence[str], journal: Journal, jobs: int, timeout: float
) -> dict[str, VideoState]:
    """Decode each of several videos, those that the journal does not know.

    Args:
        paths (Sequence[str]): The files, each once.
        journal (Journal): What earlier runs found out; gets what this one does.
        jobs (int): Number of processes.
        timeout (float): Seconds that one file may take.

    Returns:
        dict[str, VideoState]: What each file is like.
    """
    states, unknown = {}, []
    for path in paths:
        known = journal.known(path)
        if known is not None:
            states[path] = known
        elif os.path.exists(path):
            unknown.append(path)
        else:
            states[path] = VideoState("missing", "does not exist")
    bad = sum(bool(state.problem) for state in states.values())
    with tqdm(
        total=len(paths), initial=len(states), desc="Videos", unit="video"
    ) as bar:
        for path, state in _decode_all(unknown, jobs, timeout):
            journal.add(path, state)
            states[path] = state
            bad += bool(state.problem)
            bar.set_postfix(bad=bad, refresh=False)
            bar.update()
    return states


def _decode_all(
    paths: Sequence[str], jobs: int, timeout: float
) -> Iterator[tuple[str, VideoState]]:
    for outcome in run_isolated(check_video, paths, jobs, timeout):
        if outcome.failure:
            reason = f"decoding {outcome.failure}"
            yield outcome.item, VideoState("unreadable", reason, retry=True)
        else:
            yield outcome.item, outcome.value


def check_list(
    ann_file: str | Path,
    videos: str | Path = "",
    *,
    out: str | Path | None = None,
    report: str | Path | None = None,
    min_frames: int = 1,
    jobs: int = 1,
    timeout: float = 120.0,
    delimiter: str | None = None,
    restart: bool = False,
) -> list[str]:
    """Check the videos of a list, and write a list of the good ones.

    Args:
        ann_file (str | Path): MMAction2's list, of lines ``path label``.
        videos (str | Path): The folder that its paths are relative to.
        out (str | Path, optional): The clean list; default ``<ann_file>_clean.txt``.
        report (str | Path, optional): The table of the bad ones; default
            ``<ann_file>_bad.csv``.
        min_frames (int): A video with fewer frames is too short.
        jobs (int): Number of processes.
        timeout (float): Seconds that one video may take.
        delimiter (str, optional): What separates path and label; default what does
            in the first line.
        restart (bool): Decode all again, whatever an interrupted run found out.

    Returns:
        list[str]: A summary, one line each.

    Raises:
        UserError: If the list cannot be read, or no video of it is good.
    """
    ann_file = Path(ann_file)
    out = Path(out or ann_file.with_name(f"{ann_file.stem}_clean.txt"))
    report = Path(report or ann_file.with_name(f"{ann_file.stem}_bad.csv"))
    if min_frames < 1:
        raise UserError(f"--min-frames must be 1 or more, not {min_frames}.")
    journal_file = out.with_name(f"{out.stem}.journal")
    outputs = {"--out": out, "--report": report, "the journal of --out": journal_file}
    expect_outputs(outputs, inputs={"ANN": ann_file})
    entries, delimiter = read_video_list(ann_file, delimiter)
    if videos:
        check_folder(videos)
    files = {name: _locate(videos, name) for name, _ in entries}
    expect_outputs(outputs, inputs={"a video of ANN": files.values()})
    with Journal(journal_file, restart) as journal:
        states = check_files(list(files.values()), journal, jobs, timeout)
    bad = {}
    for name, path in files.items():
        state = _judge_length(states[path], min_frames)
        if state.problem:
            bad[name] = state
    _write_report(report, bad)
    counts = Counter(state.problem for state in bad.values())
    found = ", ".join(f"{counts[x]} {x}" for x in PROBLEMS if counts[x])
    summary = [
        f"{len(files)} videos: {len(files) - len(bad)} good, {len(bad)} bad"
        + (f" ({found})" if found else "")
    ]
    for name, state in list(bad.items())[:SHOWN]:
        summary.append(f"  {state.problem}: {files[name]}: {state.reason}")
    if len(bad) > SHOWN:
        summary.append(f"  and {len(bad) - SHOWN} more")
    if len(bad) == len(files):
        name, state = next(iter(bad.items()))
        raise UserError(
            f"None of the {len(files)} videos of {ann_file} is good, so no clean list "
            f"was written; the first, {files[name]}, is {state.problem} "
            f"({state.reason}). All are in {report}."
        )
    kept = [line for name, line in entries if name not in bad]
    write_text(out, "".join(f"{line}\n" for line in kept))
    summary.append(f"Clean list: {out}")
    if bad:
        summary.append(f"Bad videos, with reasons: {report}")
    return summary


def _locate(videos: str | Path, name: str) -> str:
    path = os.path.join(videos, name)
    # DecordInit adds the suffix where the list leaves it out.
    if not os.path.exists(path) and os.path.exists(f"{path}.mp4"):
        return f"{path}.mp4"
    return path


def _judge_length(state: VideoState, min_frames: int) -> VideoState:
    if state.problem or state.frames >= min_frames:
        return state
    reason = f"has {state.frames} frames, fewer than {min_frames}"
    return VideoState("too short", reason, state.frames, state.declared)


def _write_report(target: Path, bad: dict[str, VideoState]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "problem", "reason", "frames", "declared_frames"))
    for name, state in bad.items():
        declared = state.declared or ""
        table.writerow((name, state.problem, state.reason, state.frames, declared))
    write_text(target, text.getvalue())


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/data/check_videos.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Decode the videos of a list, report those that are missing, "
        "unreadable, truncated or too short, and write a list of the others. An "
        "interrupted run goes on where it stopped."
    )
    parser.add_argument("ann_file", metavar="ANN", help="list of lines 'path label'")
    parser.add_argument(
        "--videos", metavar="DIR", default="", help="folder that its paths are below"
    )
    parser.add_argument(
        "-j", "--jobs", type=int, default=1, help="processes; default %(default)s"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="clean list; default ANN's name with _clean.txt"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="table of the bad videos; default ANN's name with _bad.csv",
    )
    parser.add_argument(
        "--min-frames",
        type=int,
        default=1,
        metavar="N",
        help="videos of fewer frames are too short; default %(default)s",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="a video that takes longer is unreadable; default %(default)g",
    )
    parser.add_argument(
        "--delimiter",
        help="between path and label; default what it is in the first line",
    )
    parser.add_argument(
        "--restart", action="store_true", help="decode all again, from the beginning"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Check the videos of a list from the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Raises:
        SystemExit: With status 2 and one sentence if the arguments cannot work.
    """
    args = vars(parse_args(argv))
    run = partial(check_list, args.pop("ann_file"), args.pop("videos"), **args)
    with user_errors():
        summary = run()
    print("\n".join(summary))
