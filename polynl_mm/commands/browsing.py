"""Drawing what a pipeline yields, once the command line is read."""

import argparse
import random

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polynl_mm.atomic_files import expect_outputs, renamed_when_complete
from polynl_mm.datasets.annotations import check_datasets
from polynl_mm.datasets.yielded_clips import (
    Clip,
    build_dataset,
    iterate_clips,
)
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack import require_mmaction2
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.user_errors import UserError


def evenly(count: int, most: int) -> list[int]:
    """Return evenly spread numbers.

    Args:
        count (int): Of how many, from 0.
        most (int): How many of them at most.
    """
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return chosen.tolist()


@literal_texts()
def draw_clips(clips: list[Clip], path: str, frames: int, views: int) -> None:
    """Draw samples one below the other, a row for each view.

    Args:
        clips (list[Clip]): The samples.
        path (str): The picture to write.
        frames (int): Frames of a view, at most.
        views (int): Views of a sample, at most.
    """
    rows = [
        (clip, view, evenly(len(clip.frames), views)[0] == view)
        for clip in clips
        for view in evenly(len(clip.frames), views)
    ]
    columns = min(frames, max(clip.frames.shape[1] for clip in clips))
    shapes = [clip.frames.shape[2] / clip.frames.shape[3] for clip in clips]
    size = (1.3 * columns + 0.2, (1.3 * max(shapes) + 0.12) * len(rows))
    titles = 0.34 * len(clips)
    figure = Figure(
        figsize=(max(size[0], 5), size[1] + titles), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.17)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (clip, view, first) in zip(grid, rows, strict=True):
        chosen = evenly(clip.frames.shape[1], frames)
        for axes, frame in zip(row, chosen, strict=False):
            axes.imshow(clip.frames[view, frame])
            axes.text(
                0.02,
                0.03,
                str(frame),
                transform=axes.transAxes,
                color="white",
                fontsize=7,
                bbox=dict(facecolor="black", alpha=0.6, pad=1, linewidth=0),
            )
        if first:
            shape = " x ".join(map(str, clip.shape))
            row[0].text(
                0,
                1.05,
                f"{clip.name}: {clip.label}   ({shape})",
                transform=row[0].transAxes,
                fontsize=8.5,
                in_layout=False,  # long names would make the first column wide
            )
    with renamed_when_complete(path) as partial:
        figure.savefig(partial)


def run(args: argparse.Namespace) -> None:
    """Draw.

    Args:
        args (argparse.Namespace): The command line of the tool.
    """
    expect_outputs({"--out": args.out}, inputs={"config": args.config})
    check_counts(args, ("number", "frames", "views"))
    if not args.out.lower().endswith((".png", ".pdf", ".svg")):
        raise UserError(f"--out takes a .png, .pdf or .svg file, not {args.out}.")
    require_mmaction2()
    cfg = load_config(args.config, args.cfg_options)
    check_datasets(cfg, (args.split,))
    random.seed(args.seed)
    np.random.seed(args.seed)
    dataset = build_dataset(cfg, args.split)
    clips = list(iterate_clips(dataset, args.number))
    if not clips:
        raise UserError(f"The {args.split} data of {args.config} have no sample.")
    draw_clips(clips, args.out, args.frames, args.views)
    print(f"{len(clips)} of {len(dataset)} samples are in {args.out}.")
