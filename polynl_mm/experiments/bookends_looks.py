"""Where the blocks look on Bookends: how much of an update is of the first disc.

The label of a Bookends clip says whether its two discs have one colour. A block that
solves it has to bring what the first disc is like to the last one: the influence on
the position of the last disc should peak on the first.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import nn

from polynl_mm.analysis.influence.in_model import (
    choose_plugin,
    explain,
    run_through,
)
from polynl_mm.analysis.influence.overlay import to_feature, to_input, to_video
from polynl_mm.datasets.bookends import FRAME_RATE, PARAMETERS_FILE
from polynl_mm.datasets.bookends_clips import (
    BookendsParameters,
    Clip,
    Disc,
    discs_of,
    plan_clips,
)
from polynl_mm.experiments.bookends_table import BLOCKS, PATTERN
from polynl_mm.experiments.quickstart import FULL
from polynl_mm.recognizers.building import build_recognizer, load_weights
from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.evaluation_pipelines import find_single_view_pipeline
from polynl_mm.recognizers.traced_clip import TracedClip, trace_clip
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError


@dataclass(frozen=True)
class Look:
    """Where a block looks from the last disc of one clip.

    Attributes:
        first (float): The share of the update inside the first disc, over its share of
            the positions.
        last (float): The same of the last disc.
        length (float): As ``first``, of the contributions' lengths.
        peak (bool): Whether the largest share is inside the first disc.
    """

    first: float
    last: float
    length: float
    peak: bool


def inside(clip: TracedClip, disc: Disc, grid: tuple[int, int, int]) -> np.ndarray:
    """Return which features lie inside a disc, (T', H', W').

    Args:
        clip (TracedClip): The clip.
        disc (Disc): The disc.
        grid (tuple[int, int, int]): How many features there are along each axis.

    Returns:
        np.ndarray: True for those whose centre the disc covers in their frame.
    """
    covered = np.zeros(grid, dtype=bool)
    for feature in np.ndindex(*grid):
        frame, x, y = to_video(clip, to_input(feature, clip.size, grid))
        centre = disc.centres.get(_number(clip, frame))
        if centre is not None:
            covered[feature] = np.hypot(y - centre[0], x - centre[1]) <= disc.radius
    return covered


def look(
    model: nn.Module, path: str, clip: TracedClip, discs: tuple[Disc, Disc]
) -> Look:
    """Measure the influence on the middle of the last disc, in the clip's last frame.

    Args:
        model (nn.Module): A model of ``configs/bookends``.
        path (str): The path of its plugin.
        clip (TracedClip): The clip.
        discs (tuple[Disc, Disc]): Its discs.

    Returns:
        Look: The measures.
    """
    seen = run_through(model, clip.inputs, path)
    grid = tuple(seen.features.shape[2:])
    last_frame = len(clip.frames) - 1
    row, column = discs[1].centres[_number(clip, last_frame)]
    place = clip.find(column, row, clip.seconds[last_frame])
    feature = to_feature(place, clip.size, grid)
    found = explain(model.get_submodule(path), seen, (0, *feature))
    shares, lengths = found.shares.numpy(), found.norms.numpy()
    first, last = (inside(clip, disc, grid) for disc in discs)
    return Look(
        first=float(shares[first].sum() / first.mean()),
        last=float(shares[last].sum() / last.mean()),
        length=float(lengths[first].sum() / lengths.sum() / first.mean()),
        peak=bool(first.flat[shares.argmax()]),
    )


def measure(
    block: str,
    checkpoint: Path,
    clips: Sequence[tuple[str, tuple[Disc, Disc]]],
) -> dict[str, float]:
    """Measure one trained block over clips.

    Args:
        block (str): A key of ``BLOCKS`` that has a plugin.
        checkpoint (Path): Its weights.
        clips (Sequence[tuple[str, tuple[Disc, Disc]]]): Videos and their discs.

    Returns:
        dict[str, float]: The medians over the clips of ``first``, ``last`` and
        ``length``, and of ``peak`` the part of the clips.
    """
    config = PATTERN.format(block)
    cfg = load_config(config)
    model = build_recognizer(cfg, config)
    load_weights(model, str(checkpoint), config)
    path, pipeline = choose_plugin(model, None), find_single_view_pipeline(cfg)
    looks = [
        asdict(look(model, path, trace_clip(video, pipeline, config), discs))
        for video, discs in clips
    ]
    medians = {
        name: statistics.median(each[name] for each in looks)
        for name in ("first", "last", "length")
    }
    return dict(medians, peak=statistics.mean(each["peak"] for each in looks))


def find_checkpoints(work_dir: Path) -> dict[str, dict[int, Path]]:
    """Return the last checkpoints of a folder of runs.

    Args:
        work_dir (Path): What ``tools/reproduce/bookends.sh`` writes:
            ``BLOCK/seed_N/epoch_5.pth``. Runs that have not come so far do not count.

    Returns:
        dict[str, dict[int, Path]]: For each key of ``BLOCKS``, by seed.

    Raises:
        UserError: If there is none.
    """
    found: dict[str, dict[int, Path]] = {}
    last = f"epoch_{FULL.epochs}.pth"
    for block in filter(None, BLOCKS):
        for checkpoint in sorted((work_dir / block.strip("-")).glob(f"seed_*/{last}")):
            seed = checkpoint.parent.name.removeprefix("seed_")
            if seed.isdigit():
                found.setdefault(block, {})[int(seed)] = checkpoint
    if not found:
        raise UserError(
            f"{work_dir} has no checkpoints BLOCK/seed_N/{last} of a block; train them "
            "by: bash tools/reproduce/bookends.sh"
        )
    return found


def format_results(results: dict[str, dict[int, dict[str, float]]]) -> str:
    """Lay the results out as a Markdown table.

    Args:
        results (dict[str, dict[int, dict[str, float]]]): For each block and seed,
            :func:`measure`.

    Returns:
        str: A row for each block: the mean over the seeds, and the lowest seed.
    """
    lines = [
        "| block | seeds | share inside the first disc, over its area | lowest seed | "
        "of the lengths | peak inside it, % | share inside the last disc, over its "
        "area |",
        "|---|---|---|---|---|---|---|",
    ]
    for block, runs in results.items():
        mean = {
            name: statistics.mean(run[name] for run in runs.values())
            for name in ("first", "last", "length", "peak")
        }
        lowest = min(run["first"] for run in runs.values())
        lines.append(
            f"| {BLOCKS[block]} | {len(runs)} | {mean['first']:.1f} | {lowest:.1f} | "
            f"{mean['length']:.1f} | {100 * mean['peak']:.0f} | {mean['last']:.1f} |"
        )
    return "\n".join(lines)


def read_clips(data: Path, count: int) -> list[tuple[str, tuple[Disc, Disc]]]:
    """Return the first validation clips of a Bookends folder, and their discs.

    Args:
        data (Path): The folder.
        count (int): How many clips.

    Returns:
        list[tuple[str, tuple[Disc, Disc]]]: Video and discs of each.
    """
    record = data / PARAMETERS_FILE
    parameters = BookendsParameters(
        **parse_json(read_text(record, "record"), str(record))
    )
    clips: list[Clip] = plan_clips(parameters, "val")[:count]
    return [(str(data / clip.path), discs_of(parameters, clip)) for clip in clips]


def _number(clip: TracedClip, frame: int) -> int:
    """Return the number in the video of a frame of the clip."""
    return round(clip.seconds[frame] * FRAME_RATE)
