"""Predicting once the command line is read: every video, whatever befalls others."""

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.commands.result_names import annotated_copies
from polynl_mm.recognizers.annotated_videos import write_annotated
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.devices import chosen_device
from polynl_mm.recognizers.prediction import Predictor
from polynl_mm.recognizers.whole_video import PART_FRAMES, WholeVideoReader
from polynl_mm.stack import require_mmaction2
from polynl_mm.stack.safe_checkpoints import trust_checkpoints
from polynl_mm.text_files import read_class_names
from polynl_mm.user_errors import UserError


def predict_all(
    predictor: Predictor | WholeVideoReader,
    args: argparse.Namespace,
    copies: list[Path | None],
) -> list[dict]:
    """Predict every video, whatever befalls the others, and print the results.

    Args:
        predictor (Predictor | WholeVideoReader): The recognizer.
        args (argparse.Namespace): From :func:`parse_args`.
        copies (list[Path | None]): Where the annotated copy of each goes, if anywhere.

    Returns:
        list[dict]: One record per video, with ``error`` where it failed.
    """
    records = []
    for video, copy in zip(args.videos, copies, strict=True):
        try:
            prediction = predictor.predict(video, args.top_k)
            print("\n".join([f"{video}:", *prediction.lines()]), flush=True)
            if prediction.note:
                print(f"  ({prediction.note})", flush=True)
            record = asdict(prediction)
            if copy is not None:
                write_annotated(video, partial(_always, prediction.lines()), copy)
                print(f"  annotated copy: {copy}", flush=True)
                record["annotated"] = str(copy)
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr, flush=True)
            record = {"video": video, "error": str(error)}
        records.append(record)
    return records


def _always(lines: list[str], _: float) -> list[str]:
    return lines


def run(args: argparse.Namespace) -> int:
    """Predict.

    Args:
        args (argparse.Namespace): The command line of the tool.

    Returns:
        int: 0, or 1 if a video could not be predicted.
    """
    check_counts(args, ["stride", "part_frames"])
    if not args.whole_video and (args.stride or args.part_frames):
        raise UserError(
            "--stride and --part-frames are of --whole-video; give that, too."
        )
    others = {"config": args.config, "checkpoint": args.checkpoint}
    others |= {"--labels": args.labels}
    inputs = {"VIDEO": args.videos, **others}
    expect_outputs({"--json": args.json}, {"--out-dir": args.out_dir}, inputs)
    copies = [None] * len(args.videos)
    if args.out_dir:
        kept = (*others.values(), args.json)
        copies = annotated_copies(args.videos, args.out_dir, kept)
    require_mmaction2()
    if args.trust_checkpoint:
        trust_checkpoints()
    predictor = Predictor(
        load_config(args.config, args.cfg_options),
        args.checkpoint,
        device=chosen_device(args.device),
        labels=read_class_names(args.labels) if args.labels else None,
        config_name=args.config,
        bound_views=not args.whole_video,
    )
    if args.whole_video:
        predictor = WholeVideoReader(
            predictor, args.stride or 1, args.part_frames or PART_FRAMES
        )
    records = predict_all(predictor, args, copies)
    if args.json:
        write_json(args.json, records)
    return int(any("error" in record for record in records))
