"""Checks annotation files and video folders before a run starts.

A missing folder or a bad line is otherwise met minutes later, in a data worker, as
an error that names neither the file nor the line.
"""

import os
import os.path as osp
from collections.abc import Iterator
from pathlib import Path

from polynl_mm.file_names import utf8_name
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError, did_you_mean

SAMPLED_VIDEOS = 3
WRAPPER_KEYS = ("dataset", "datasets")


def check_datasets(cfg, splits: tuple[str, ...]) -> None:
    """Check the annotation files and folders that a config's dataloaders read.

    Args:
        cfg (mmengine.Config): The config of a run.
        splits (tuple[str, ...]): Of ``"train"``, ``"val"``, ``"test"``.

    Raises:
        UserError: One sentence with the dataloader, the file, and the line if one is
            malformed.
    """
    num_classes = _num_classes(cfg)
    for split in splits:
        survives = _survives_bad_videos(cfg, split)
        for dataset in _datasets(cfg, split):
            _check_dataset(dataset, f"{split}_dataloader", num_classes, survives)


def annotation_files(cfg, split: str) -> list[str]:
    """Return the annotation files that a config's dataloader reads.

    Args:
        cfg (mmengine.Config): The config of a run.
        split (str): ``"train"``, ``"val"`` or ``"test"``.

    Returns:
        list[str]: Their paths.
    """
    return [
        _join(dataset.get("data_root"), dataset["ann_file"])
        for dataset in _datasets(cfg, split)
        if dataset.get("ann_file")
    ]


def check_annotation_line(
    line: str,
    kind: str,
    delimiter: str | None = " ",
    multi_class: bool = False,
    with_offset: bool = False,
    num_classes: int | None = None,
) -> str:
    """Check one line of an annotation file.

    Args:
        line (str): The line.
        kind (str): ``"VideoDataset"`` (``path label``) or ``"RawframeDataset"``
            (``folder total_frames label``); the label is a whole number from 0.
        delimiter (str | None): What separates the fields of a VideoDataset's line.
        multi_class (bool): Whether several labels may follow.
        with_offset (bool): Whether a RawframeDataset's line has a first frame too.
        num_classes (int | None): Labels must be below it.

    Returns:
        str: The path of the video or of its folder of frames.

    Raises:
        ValueError: Says what is wrong with the line, without naming the file.
    """
    if not line.strip():
        raise ValueError("is empty")
    if kind == "VideoDataset":
        fields = line.strip().split(delimiter)
        numbers, form = 0, f"path{delimiter or ' '}label"
    else:
        fields = line.strip().split()
        numbers = 2 if with_offset else 1
        form = "folder first_frame total_frames label" if with_offset else (
            "folder total_frames label"
        )  # fmt: skip
    labels = fields[1 + numbers :]
    if not labels or (len(labels) > 1 and not multi_class):
        hint = ""
        if kind == "VideoDataset" and len(labels) > 1:
            hint = (
                "; if paths have spaces, separate path and label by something else, "
                "such as a semicolon, and set delimiter=';' in the dataset's config"
            )
        count = f"{len(fields)} field" + ("" if len(fields) == 1 else "s")
        raise ValueError(f"has {count} where {form!r} is expected{hint}")
    for value in fields[1 : 1 + numbers]:
        if not _is_whole(value):
            raise ValueError(f"has {value[:40]!r} where a number of frames is expected")
    for value in labels:
        if not _is_whole(value):
            raise ValueError(
                f"has the label {value[:40]!r}, which is not a whole number from 0"
            )
        if num_classes is not None and int(value) >= num_classes:
            raise ValueError(
                f"has the label {value}, but the head has num_classes={num_classes} "
                f"(labels 0 to {num_classes - 1})"
            )
    return fields[0]


def _survives_bad_videos(cfg, split: str) -> bool:
    """Return whether a run of the config goes on where single videos are missing."""
    for hook in cfg.get("custom_hooks") or []:
        if str(hook.get("type")).split(".")[-1] == "BadVideosHook":
            return split == "train" or hook.get("in_testing") == "wrong"
    return False


def _datasets(cfg, split: str) -> Iterator[dict]:
    """Yield the datasets of a dataloader, those that are wrapped before the wrapper."""
    loader = cfg.get(f"{split}_dataloader")
    for part in loader if isinstance(loader, (list, tuple)) else [loader]:
        if part and part.get("dataset"):
            yield from _unwrapped(part["dataset"])


def _unwrapped(dataset: dict) -> Iterator[dict]:
    for key in WRAPPER_KEYS:
        inner = dataset.get(key)
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            if isinstance(part, dict):
                yield from _unwrapped(part)
    yield dataset


def _check_dataset(
    dataset: dict, where: str, num_classes: int | None, survives: bool
) -> None:
    ann_file = dataset.get("ann_file")
    if not ann_file or not _is_local(dataset, ann_file):
        return
    path = _join(dataset.get("data_root"), ann_file)
    _check_ann_file(path, where)
    kind = str(dataset.get("type", "")).split(".")[-1]
    if kind not in ("VideoDataset", "RawframeDataset"):
        return
    folder = _check_folder(dataset, kind, where)
    _check_delimiter(dataset, where)
    names = _check_lines(path, dataset, kind, num_classes)
    _check_videos(names, folder, kind, path, survives)


def _check_ann_file(path: str, where: str) -> None:
    if osp.isdir(path):
        raise UserError(
            f"{where}.dataset.ann_file={path} is a folder; give the annotation file."
        )
    if not osp.isfile(path):
        folder = Path(path).absolute().parent
        hint = f"; the folder {folder} does not exist either"
        if folder.is_dir():
            hint = did_you_mean(osp.basename(path), os.listdir(folder))
        raise UserError(
            f"The annotation file {path} ({where}.dataset.ann_file) does not exist"
            f"{hint or '; see data/README.md for how datasets are laid out'}"
        )


def _check_folder(dataset: dict, kind: str, where: str) -> str:
    key = "video" if kind == "VideoDataset" else "img"
    prefix = (dataset.get("data_prefix") or {}).get(key) or ""
    folder = _join(dataset.get("data_root"), prefix)
    if folder and not osp.isdir(folder):
        raise UserError(
            f"The video folder {folder} ({where}.dataset.data_prefix.{key}) does not "
            "exist; put the videos there or change data_prefix."
        )
    utf8_name(folder)
    return folder


def _check_delimiter(dataset: dict, where: str) -> None:
    delimiter = dataset.get("delimiter")
    if delimiter is None or (isinstance(delimiter, str) and delimiter):
        return
    # On the command line a comma makes a list, also where it stands alone.
    raise UserError(
        f"{where}.dataset.delimiter must be text such as ',', or None, but it is "
        f"{delimiter!r}; write it in the config file: "
        f"{where} = dict(dataset=dict(delimiter=','))."
    )


def _check_lines(
    path: str, dataset: dict, kind: str, num_classes: int | None
) -> list[str]:
    lines = read_text(path, "annotation file").splitlines()
    if not any(line.strip() for line in lines):
        raise UserError(f"The annotation file {path} is empty: it lists no video.")
    names = []
    for number, line in enumerate(lines, start=1):
        try:
            names.append(
                check_annotation_line(
                    line,
                    kind,
                    delimiter=dataset.get("delimiter", " "),
                    multi_class=dataset.get("multi_class", False),
                    with_offset=dataset.get("with_offset", False),
                    num_classes=num_classes,
                )
            )
        except ValueError as error:
            raise UserError(f"{path}, line {number} {error}: {line[:120]!r}") from error
    return names


def _check_videos(
    names: list[str], folder: str, kind: str, ann_file: str, survives: bool
) -> None:
    """Look for a few of the videos: all of them may be millions of disk accesses."""
    step = max(1, (len(names) - 1) // max(1, SAMPLED_VIDEOS - 1))
    for name in names[::step][:SAMPLED_VIDEOS]:
        path = osp.join(folder, name)
        # DecordInit adds the suffix where the list leaves it out.
        found = osp.exists(path) or (
            kind == "VideoDataset" and osp.exists(f"{path}.mp4")
        )
        if found and survives:
            return  # the folder is right, and the run counts what is missing
        if not found and not survives:
            raise UserError(
                f"{ann_file} lists {name}, but {path} does not exist; check "
                "data_prefix and that the videos are there."
            )
    if survives:
        raise UserError(
            f"None of the videos of {ann_file} that were looked for, such as {path}, "
            "exists; check data_prefix and that the videos are there."
        )


def _is_local(dataset: dict, ann_file: str) -> bool:
    if "://" in str(ann_file):
        return False
    for step in dataset.get("pipeline") or []:
        if isinstance(step, dict) and step.get("io_backend", "disk") not in (
            "disk",
            "local",
        ):
            return False
    return True


def _is_whole(text: str) -> bool:
    # No file and no head has more than 18 digits of frames or classes.
    return text.isascii() and text.isdigit() and len(text) <= 18


def _join(root: str | None, path: str) -> str:
    if root and not osp.isabs(path):
        return osp.join(root, path)
    return path


def _num_classes(cfg) -> int | None:
    head = (cfg.get("model") or {}).get("cls_head") or {}
    return head.get("num_classes") if isinstance(head, dict) else None
