"""What the tools that draw over a video share: model, clip and class."""

import argparse
from pathlib import Path

import numpy as np

from polynl_mm.atomic_files import expect_outputs
from polynl_mm.backbones.accelerate import REPLACEMENTS, accelerate_non_local
from polynl_mm.commands.result_names import result_stem
from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.devices import chosen_device
from polynl_mm.recognizers.evaluation_pipelines import find_single_view_pipeline
from polynl_mm.recognizers.prediction import Predictor
from polynl_mm.recognizers.traced_clip import TracedClip, trace_clip
from polynl_mm.stack import require_mmaction2
from polynl_mm.stack.safe_checkpoints import trust_checkpoints
from polynl_mm.text_files import read_class_names
from polynl_mm.user_errors import UserError, did_you_mean


class ShownClip:
    """A model, a clip of a video for it, and the class that is asked about.

    Args:
        args (argparse.Namespace): With the options of :mod:`clip_options`.
        kind (str): What is drawn, as the names of the files say it.

    Raises:
        UserError: If one of them cannot be had.
    """

    def __init__(self, args: argparse.Namespace, kind: str) -> None:
        stem = f"{result_stem(args.video)}_{kind}"
        self.files = {s: Path(args.out, f"{stem}.{s}") for s in ("png", "mp4", "npz")}
        expect_outputs(
            {f"the {suffix} of --out": file for suffix, file in self.files.items()},
            {"--out": args.out},
            {
                "video": args.video,
                "config": args.config,
                "checkpoint": args.checkpoint,
                "--labels": args.labels,
            },
        )
        require_mmaction2()
        if args.trust_checkpoint:
            trust_checkpoints()
        cfg = load_config(args.config, args.cfg_options)
        self.names = read_class_names(args.labels) if args.labels else None
        predictor = Predictor(
            cfg,
            args.checkpoint,
            device=chosen_device(args.device),
            labels=self.names,
            config_name=args.config,
        )
        self.model = predictor.model
        if any(type(module) in REPLACEMENTS for module in self.model.modules()):
            accelerate_non_local(self.model)  # its own blocks are shown, too
        self.label = self._find_class(args.label)
        pipeline = find_single_view_pipeline(cfg)
        self.clip: TracedClip = trace_clip(args.video, pipeline, args.config)
        if self.clip.note:
            print(f"({self.clip.note})", flush=True)

    def _find_class(self, label: str | None) -> int | None:
        count = getattr(getattr(self.model, "cls_head", None), "num_classes", None)
        if label is None:
            return None
        if self.names and label in self.names:
            return self.names.index(label)
        if not label.isdigit():
            hint = did_you_mean(label, self.names) if self.names else ""
            known = hint or (
                "." if self.names else "; give the names by --labels, or a number."
            )
            raise UserError(f"--class: there is no class {label!r}{known}")
        if count is not None and int(label) >= count:
            raise UserError(
                f"--class {label}: the model has {count} classes, from 0 to "
                f"{count - 1}."
            )
        return int(label)

    def name_of(self, label: int) -> str:
        """Return the name of a class, or its number."""
        return self.names[label] if self.names else f"class {label}"

    def over_clip(self, sample: int, values: np.ndarray, count: int) -> np.ndarray:
        """Return a map as one of the clip: (T', H', W').

        Args:
            sample (int): Which of the features' samples the map is of.
            values (np.ndarray): (T', H', W'), or (H', W') of a network of images, whose
                samples are the frames.
            count (int): How many samples there are.
        """
        if values.ndim == 3:
            return values
        whole = np.zeros((count, *values.shape), values.dtype)
        whole[sample] = values
        return whole
