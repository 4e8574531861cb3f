"""Predicting over time once the command line is read: windows and files."""

import argparse
import math
import sys
from pathlib import Path

from tqdm import tqdm

from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.commands.result_names import read_record, result_stem
from polynl_mm.recognizers.annotated_videos import write_annotated
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.devices import chosen_device
from polynl_mm.recognizers.frames_in_order import FramesInOrder
from polynl_mm.recognizers.prediction import Predictor
from polynl_mm.recognizers.timelines import Timeline
from polynl_mm.recognizers.video_reading import check_video
from polynl_mm.recognizers.windows import WindowSampler, windows_of
from polynl_mm.stack import require_mmaction2
from polynl_mm.stack.safe_checkpoints import trust_checkpoints
from polynl_mm.text_files import read_class_names
from polynl_mm.user_errors import UserError

KINDS = ("json", "csv", "png")


def score_windows(
    predictor: Predictor, video: str, window: float, step: float
) -> Timeline:
    """Score the windows of a video in one pass over it.

    Args:
        predictor (Predictor): The recognizer.
        video (str): The file.
        window (float): Length of a window in seconds.
        step (float): From one window to the next in seconds.

    Returns:
        Timeline: The scores of all that can be read.

    Raises:
        UserError: If no frame of the video can be read.
    """
    sampler = WindowSampler(predictor.steps)
    frames = FramesInOrder(video, sampler.reader)
    timeline = Timeline(str(video))
    total = math.ceil(frames.seconds) or None
    with tqdm(total=total, desc=Path(video).name, unit="s") as bar:
        for one in windows_of(sampler.shrunk(frames), window, step):
            scores = predictor.scores(sampler.sample(one), video).numpy()
            timeline.starts.append(one.start)
            timeline.ends.append(one.end)
            timeline.scores.append(scores)
            bar.update(int(one.end) - bar.n)
    timeline.labels = [predictor.label(k) for k in range(len(timeline.scores[0]))]
    timeline.note = frames.note()
    return timeline


def run(args: argparse.Namespace) -> None:
    """Predict over time.

    Args:
        args (argparse.Namespace): The command line of the tool.
    """
    check_counts(args, ["top_k"])
    step = args.window / 2 if args.step is None else args.step
    outputs = _outputs(args)
    if args.annotated_video and not args.annotated_video.endswith(".mp4"):
        raise UserError(
            f"--annotated-video takes an .mp4 file, not {args.annotated_video}."
        )
    check_video(args.video)
    read_record(outputs["json"], args.video)  # which may be that of another one
    require_mmaction2()
    if args.trust_checkpoint:
        trust_checkpoints()
    predictor = Predictor(
        load_config(args.config, args.cfg_options),
        args.checkpoint,
        device=chosen_device(args.device),
        labels=read_class_names(args.labels) if args.labels else None,
        config_name=args.config,
    )
    timeline = score_windows(predictor, args.video, args.window, step)
    settings = {"config": args.config, "checkpoint": args.checkpoint}
    settings |= {"window": args.window, "step": step}
    write_json(outputs["json"], {**settings, **timeline.record()})
    timeline.write_csv(outputs["csv"])
    timeline.draw(outputs["png"])
    for segment in timeline.segments():
        print(
            f"{segment.start:10.2f} s to {segment.end:10.2f} s "
            f"{segment.probability:7.2%}  {segment.label}"
        )
    print("Written: " + ", ".join(str(path) for path in outputs.values()))
    if args.annotated_video:
        write_annotated(
            args.video,
            lambda time: timeline.lines_at(time, args.top_k),
            args.annotated_video,
        )
        print(f"Annotated copy: {args.annotated_video}")
    if timeline.note:
        print(f"Warning: {timeline.note}", file=sys.stderr, flush=True)


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    """Return where the timeline goes, once it is known that it and the copy can be."""
    stem = f"{result_stem(args.video)}_timeline"
    outputs = {kind: Path(args.out_dir, f"{stem}.{kind}") for kind in KINDS}
    named = {f"the {kind} of --out-dir": path for kind, path in outputs.items()}
    expect_outputs(
        {"--annotated-video": args.annotated_video, **named},
        {"--out-dir": args.out_dir},
        {
            "VIDEO": args.video,
            "config": args.config,
            "checkpoint": args.checkpoint,
            "--labels": args.labels,
        },
    )
    return outputs
