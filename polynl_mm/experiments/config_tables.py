"""The tables in the READMEs of configs/: what our models cost, what others published.

Costs are counted from the configs, as ``tools/analysis_tools/get_flops.py`` does;
published results are read from the index that MMAction2 installs beside its configs.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from tqdm import tqdm

from polynl_mm.analysis.cost.operations import count_recognizer_cost
from polynl_mm.experiments.page_tables import END, START
from polynl_mm.installation import CONFIGS
from polynl_mm.plugins import Plugin
from polynl_mm.recognizers.configs import find_config, load_config
from polynl_mm.user_errors import UserError, did_you_mean

# What MMAction2 trained that stands nearest to a folder's experiments.
PUBLISHED = {
    "i3d": (
        "i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb",
        "i3d_imagenet-pretrained-r50-nl-embedded-gaussian_8xb8-32x2x1-100e_kinetics400-rgb",
        "i3d_imagenet-pretrained-r50-nl-dot-product_8xb8-32x2x1-100e_kinetics400-rgb",
    ),
    "slowonly": (
        "slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb",
        "slowonly_imagenet-pretrained-r50_8xb16-8x8x1-steplr-150e_kinetics400-rgb",
        "slowonly_r50-in1k-pre-nl-embedded-gaussian_8xb16-8x8x1-steplr-150e_kinetics400-rgb",
    ),
    "slowfast": ("slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb",),
    "tsm": (
        "tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb",
        "tsm_imagenet-pretrained-r50-nl-embedded-gaussian_8xb16-1x1x8-50e_kinetics400-rgb",
        "tsm_imagenet-pretrained-r50-nl-dot-product_8xb16-1x1x8-50e_kinetics400-rgb",
    ),
    "c2d": ("c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb",),
}


@dataclass(frozen=True)
class PublishedResult:
    """What MMAction2 reports of one of its models on Kinetics-400.

    Attributes:
        name (str): Its config, without folder and ending.
        top1 (float): Per cent.
        top5 (float): Per cent.
        gflops (float): Of one view.
        parameters (float): In millions.
        weights (str): Address of the checkpoint.
    """

    name: str
    top1: float
    top5: float
    gflops: float
    parameters: float
    weights: str

    @property
    def config(self) -> str:
        """The config as the tools take it."""
        return f"mmaction::recognition/{self.name.split('_')[0]}/{self.name}.py"


def one_view(cfg: Config) -> tuple[int, int, int, int]:
    """Return the shape of one of the views that a config tests with.

    Args:
        cfg (Config): A config with a test pipeline.

    Returns:
        tuple[int, int, int, int]: (3, T, H, W) for a 3D recognizer, (T, 3, H, W) for a
        2D one.
    """
    pipeline = cfg.test_dataloader.dataset.pipeline
    frames = next(step for step in pipeline if step["type"] == "SampleFrames")
    crop = next(step["crop_size"] for step in pipeline if "crop_size" in step)
    if cfg.model.type == "Recognizer2D":  # each of its clips is a frame of the view
        return frames["clip_len"] * frames["num_clips"], 3, crop, crop
    return 3, frames["clip_len"], crop, crop


def build_model(cfg: Config) -> nn.Module:
    """Build a config's model without its numbers, which counting does not need.

    Args:
        cfg (Config): The config.

    Returns:
        nn.Module: The recognizer, on the meta device.
    """
    with quiet(), torch.device("meta"):
        init_default_scope(cfg.get("default_scope", "mmaction"))
        return MODELS.build(cfg.model)


def published_results(folder: str) -> list[PublishedResult]:
    """Read what MMAction2 published of the models that a folder starts from.

    Args:
        folder (str): A key of ``PUBLISHED``.

    Returns:
        list[PublishedResult]: In the order of ``PUBLISHED``.
    """
    names = PUBLISHED[folder]
    known = f"mmaction::recognition/{folder}/{names[0]}.py"
    index = yaml.safe_load(find_config(known).with_name("metafile.yml").read_text())
    models = {model["Name"]: model for model in index["Models"]}
    return [_read_model(models[name]) for name in names]


def _read_model(model: dict) -> PublishedResult:
    metrics = model["Results"][0]["Metrics"]
    return PublishedResult(
        name=model["Name"],
        top1=metrics["Top 1 Accuracy"],
        top5=metrics["Top 5 Accuracy"],
        gflops=float(model["Metadata"]["FLOPs"].removesuffix("G")),
        parameters=float(model["Metadata"]["Parameters"].removesuffix("M")),
        weights=model["Weights"],
    )


def format_experiments(folder: Path) -> str:
    """Lay a folder's configs out as a Markdown table, with their costs.

    Args:
        folder (Path): A folder of configs. Those that differ in their split of the
            data alone share a row.

    Returns:
        str: The table.
    """
    rows: dict[str, str] = {}
    for file in tqdm(sorted(folder.glob("*.py")), desc=folder.name, unit="config"):
        label = re.sub(r"split\d", "split{1,2,3}", file.stem)
        if label in rows:
            continue
        with quiet():
            cfg = load_config(str(file))
        model = build_model(cfg)
        block, count = _describe_plugins(cfg, model)
        cost = count_recognizer_cost(model, one_view(cfg))
        rows[label] = (
            f"| [{label}]({file.name}) | {block} | {count} "
            f"| {' '.join(map(str, one_view(cfg)))} "
            f"| {cost.gflops:.1f} | {cost.parameters / 1e6:.1f} |"
        )
    head = [
        "| config | block | how many | one view | GFLOPs | parameters, M |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows.values()])


def _describe_plugins(cfg: Config, model: nn.Module) -> tuple[str, str]:
    """Return what is inserted into a config's backbone, and how many where."""
    entries = [entry.cfg for entry in cfg.model.backbone.get("plugins", [])]
    kinds = [
        f"{entry.type}, {entry.mode.replace('_', ' ')}"
        if "mode" in entry
        else entry.type
        for entry in entries
    ]
    paths = [name for name, m in model.named_modules() if isinstance(m, Plugin)]
    by_pathway = [
        f"{count} {pathway}"
        for pathway in ("slow", "fast")
        if (count := sum(f"{pathway}_path." in path for path in paths))
    ]
    return "; ".join(kinds) or "none", " + ".join(by_pathway) or str(len(paths))


def format_published(folder: str) -> str:
    """Lay MMAction2's published results out beside what we count for its configs.

    Args:
        folder (str): A key of ``PUBLISHED``.

    Returns:
        str: A Markdown table.
    """
    lines = [
        "| MMAction2's config | top-1, % | top-5, % | one view "
        "| GFLOPs published | counted | parameters published, M | counted, M |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in published_results(folder):
        with quiet():
            cfg = load_config(result.config)
        cost = count_recognizer_cost(build_model(cfg), one_view(cfg))
        lines.append(
            f"| {result.name} | {result.top1:.2f} | {result.top5:.2f} "
            f"| {' '.join(map(str, one_view(cfg)))} | {result.gflops:g} "
            f"| {cost.gflops:.1f} | {result.parameters} | {cost.parameters / 1e6:.1f} |"
        )
    return "\n".join(lines)


def format_page(folder: Path) -> str:
    """Return what stands between the marks of a folder's README.

    Args:
        folder (Path): A folder of configs.

    Returns:
        str: Markdown.
    """
    parts = [format_experiments(folder)]
    if folder.name in PUBLISHED:
        parts += [
            "Published by MMAction2 on Kinetics-400, not ours; `counted` is our "
            "count of the same config:",
            format_published(folder.name),
        ]
    return "\n\n".join(parts)


def is_current(folder: Path) -> bool:
    """Say whether a folder's README has the tables that would be written now.

    Args:
        folder (Path): A folder of configs.

    Returns:
        bool: Whether nothing would change.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    return f"{START}\n{format_page(folder)}\n{END}" in text


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the stack's own remarks out of a progress bar."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def find_folders(names: Sequence[str]) -> list[Path]:
    """Return the folders of configs whose READMEs have tables.

    Args:
        names (Sequence[str]): Their names; empty for all.

    Returns:
        list[Path]: The folders.

    Raises:
        UserError: If a name is of no such folder.
    """
    pages = sorted(CONFIGS.glob("*/README.md"))
    known = {
        page.parent.name: page.parent
        for page in pages
        if START in page.read_text(encoding="utf-8")
    }
    for name in names:
        if name not in known:
            raise UserError(
                f"There is no {name!r} among the folders of configs/ with a table in "
                f"their README{did_you_mean(name, known) or f': {sorted(known)}.'}"
            )
    return [known[name] for name in names or known]
