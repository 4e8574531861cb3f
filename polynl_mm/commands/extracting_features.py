"""Extracting features once the command line is read: windows, files, ranks."""

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch.distributed as dist
from tqdm import tqdm

from polynl_mm.atomic_files import (
    UnwritableError,
    expect_outputs,
    remove_leftovers,
    renamed_when_complete,
    write_json,
)
from polynl_mm.commands.result_names import read_record
from polynl_mm.datasets.preparation.listed_videos import (
    SCORES,
    ListedVideo,
    read_video_list,
)
from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.devices import chosen_device
from polynl_mm.recognizers.frames_in_order import FramesInOrder
from polynl_mm.recognizers.pooled_features import PooledFeatures
from polynl_mm.recognizers.prediction import Predictor
from polynl_mm.recognizers.windows import WindowSampler, windows_of
from polynl_mm.stack import require_mmaction2
from polynl_mm.stack.process_group import leave_process_group, set_rank_variables
from polynl_mm.stack.safe_checkpoints import trust_checkpoints
from polynl_mm.user_errors import UserError

# A process with short videos waits in the end for those with long ones.
PATIENCE = timedelta(days=30)


@dataclass
class Tally:
    """What became of the videos of a list.

    Attributes:
        done (int): How many were written.
        there (int): How many had been written before.
        damaged (list[str]): A sentence for each of which a part only could be read.
        bad (list[str]): A sentence for each that could not be read.
    """

    done: int = 0
    there: int = 0
    damaged: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add what became of others."""
        self.done += other.done
        self.there += other.there
        self.damaged += other.damaged
        self.bad += other.bad


def files_of(video: ListedVideo, args: argparse.Namespace) -> dict[str, Path]:
    """Return the files that are written for a video.

    Args:
        video (ListedVideo): The video.
        args (argparse.Namespace): From :func:`parse_args`.

    Returns:
        dict[str, Path]: Its features, its scores if they are wanted, its record.
    """
    stem = f"{Path(args.out_dir, video.name)}"
    files = {"features": Path(f"{stem}.npy"), "record": Path(f"{stem}.json")}
    if args.scores:
        files["scores"] = Path(f"{stem}{SCORES}.npy")
    return files


class Extractor:
    """Writes the features of videos.

    Args:
        predictor (Predictor): The recognizer.
        args (argparse.Namespace): From :func:`parse_args`.
    """

    def __init__(self, predictor: Predictor, args: argparse.Namespace):
        self.predictor, self.args = predictor, args
        self.sampler = WindowSampler(predictor.steps)
        self.features = PooledFeatures(predictor.model, args.module)
        # What a file that is there already must have been made with.
        self.settings = {
            "config": args.config,
            "checkpoint": args.checkpoint,
            "cfg_options": json.dumps(args.cfg_options or {}, default=str),
            "module": args.module,
            "window": args.window,
            "step": args.step,
        }

    def is_there(self, video: ListedVideo) -> bool:
        """Return whether a video's features are complete.

        Args:
            video (ListedVideo): The video.

        Raises:
            UserError: If they were made in another way, or are those of another video.
        """
        files = files_of(video, self.args)
        record = files["record"]
        known = read_record(record, video.path)
        if known is None or not all(file.is_file() for file in files.values()):
            return False
        other = [k for k, v in self.settings.items() if known.get(k) != v]
        if other:
            raise UserError(
                f"{record} was made with {other[0]}={known.get(other[0])!r}, not "
                f"{self.settings[other[0]]!r}; give another --out-dir."
            )
        return True

    def write(self, video: ListedVideo) -> str:
        """Extract and write the features of a video.

        Args:
            video (ListedVideo): The video.

        Returns:
            str: A sentence if a part of it only can be read; mostly empty.

        Raises:
            UserError: If no frame of it can be read.
        """
        frames = FramesInOrder(video.path, self.sampler.reader)
        starts, ends, rows, scores = [], [], [], []
        shrunk = self.sampler.shrunk(frames)
        for window in windows_of(shrunk, self.args.window, self.args.step):
            sample = self.sampler.sample(window)
            with self.features.collecting():
                scores.append(self.predictor.scores(sample, video.path).numpy())
            rows.append(self.features.vector().numpy())
            starts.append(round(window.start, 6))
            ends.append(round(window.end, 6))
        files = files_of(video, self.args)
        self._save(files["features"], np.stack(rows))  # (windows, C)
        if self.args.scores:
            self._save(files["scores"], np.stack(scores))
        record = {"video": video.path, "note": frames.note(), **self.settings}
        record |= {"shape": [len(rows), len(rows[0])], "start": starts, "end": ends}
        write_json(files["record"], record)  # last: it says that all is there
        return frames.note()

    @staticmethod
    def _save(target: Path, array: np.ndarray) -> None:
        with renamed_when_complete(target) as partial:
            np.save(partial, array)


def extract_all(extractor: Extractor, videos: list[ListedVideo]) -> Tally:
    """Extract the features of videos, whatever befalls single ones.

    Args:
        extractor (Extractor): What writes them.
        videos (list[ListedVideo]): This process's own.

    Returns:
        Tally: What became of them.
    """
    tally = Tally()
    quiet = int(os.environ.get("RANK", 0)) != 0
    for video in tqdm(videos, desc="features", unit="video", disable=quiet):
        if extractor.is_there(video):
            tally.there += 1
            continue
        try:
            note = extractor.write(video)
        except UnwritableError:
            raise
        except UserError as error:
            tqdm.write(f"Error: {error}", file=sys.stderr)
            tally.bad.append(str(error))
            continue
        tally.done += 1
        if note:
            tqdm.write(f"Warning: {note}", file=sys.stderr)
            tally.damaged.append(note)
    return tally


def run(args: argparse.Namespace) -> int:
    """Extract features.

    Args:
        args (argparse.Namespace): The command line of the tool.

    Returns:
        int: 0, or 1 if a video could not be read; of several processes the first says
        that for all.
    """
    args.step = args.window if args.step is None else args.step
    if args.delimiter == "":
        raise UserError("--delimiter is at least one character, such as ';'.")
    expect_outputs(folders={"--out-dir": args.out_dir})
    folder = args.data_prefix or str(Path(args.list).parent)
    videos = read_video_list(args.list, folder, args.delimiter)
    expect_outputs(
        {
            f"the {kind} of {video.path} in --out-dir,": file
            for video in videos
            for kind, file in files_of(video, args).items()
            if file.exists()  # else it is no input either
        },
        inputs={
            "config": args.config,
            "checkpoint": args.checkpoint,
            "LIST": args.list,
            "VIDEO": [video.path for video in videos],
        },
    )
    require_mmaction2()
    if args.trust_checkpoint:
        trust_checkpoints()
    rank, size, device = _place(args)
    predictor = Predictor(
        load_config(args.config, args.cfg_options),
        args.checkpoint,
        device=device,
        config_name=args.config,
        average="config",
    )
    remove_leftovers(args.out_dir)
    tally = extract_all(Extractor(predictor, args), videos[rank::size])
    if size > 1:
        tallies = [None] * size
        dist.all_gather_object(tallies, tally)
        tally = Tally()
        for one in tallies:
            tally.add(one)
    leave_process_group()
    if rank == 0:
        _say(tally, len(videos), args.out_dir)
    return int(rank == 0 and bool(tally.bad))


def _place(args: argparse.Namespace) -> tuple[int, int, str]:
    """Return which of how many processes this is, and where it computes."""
    device = chosen_device(args.device)
    if args.launcher == "none":
        return 0, 1, device
    set_rank_variables(args.launcher)
    dist.init_process_group("gloo", timeout=PATIENCE)
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return dist.get_rank(), dist.get_world_size(), device


def _say(tally: Tally, listed: int, folder: str) -> None:
    there = f" ({tally.there} were there already)" if tally.there else ""
    print(f"{tally.done + tally.there} of {listed} videos are in {folder}{there}.")
    for sentences, what in (
        (tally.damaged, "can be read in part only"),
        (tally.bad, "cannot be read and have no features"),
    ):
        if sentences:
            print(f"{len(sentences)} of them {what}:", file=sys.stderr)
            for sentence in sentences:
                print(f"  {sentence}", file=sys.stderr, flush=True)
