"""The context blocks in a recognizer: where they are, what they see, what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from torch import Tensor, nn

from polynl_mm.analysis.cost.operations import count_cost, count_recognizer_cost
from polynl_mm.plugins import Plugin


@dataclass(frozen=True)
class Inserted:
    """One block.

    Attributes:
        path (str): Its module path in the recognizer.
        kind (str): Its type.
        shape (tuple[int, ...]): Of the features it sees in one view, (B, C, ...); in
            2D recognizers B may be the frames.
        gflops (float): As ``get_flops.py`` counts.
        parameters (int): Trained or not.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    gflops: float
    parameters: int


def list_inserted(recognizer: nn.Module, shape: Sequence[int]) -> list[Inserted]:
    """List the plugins of polynl_mm and mmcv's non-local blocks in a recognizer.

    Args:
        recognizer (nn.Module): A recognizer of MMAction2, best on the meta device.
        shape (Sequence[int]): One view: (3, T, H, W) of a 3D recognizer, (T, 3, H, W)
            of a 2D one.

    Returns:
        list[Inserted]: In the order in which they run; those that do not run are
        left out.

    Raises:
        ValueError: If the shape is not one of a view.
    """
    seen: dict[str, tuple[int, ...]] = {}
    blocks = {
        path: module
        for path, module in recognizer.named_modules()
        if isinstance(module, Plugin | _NonLocalNd)
    }

    def note(path: str):
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.setdefault(path, tuple(args[0].shape))

        return hook

    handles = [m.register_forward_pre_hook(note(path)) for path, m in blocks.items()]
    try:
        count_recognizer_cost(recognizer, shape)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for path, size in seen.items():
        block = blocks[path]
        device = next(recognizer.parameters()).device
        x = torch.empty(size, device=device)
        cost = count_cost(block, lambda block=block, x=x: block(x))
        found.append(
            Inserted(path, type(block).__name__, size, cost.gflops, cost.parameters)
        )
    return found


def format_inserted(blocks: Sequence[Inserted], whole_gflops: float) -> str:
    """Lay blocks out as a table.

    Args:
        blocks (Sequence[Inserted]): From :func:`list_inserted`.
        whole_gflops (float): Of the recognizer.

    Returns:
        str: Lines of equal columns, and a line of sums.
    """
    rows = [("module", "plugin", "features", "GFLOPs", "share", "parameters")]
    for block in blocks:
        rows.append(
            (
                block.path,
                block.kind,
                " x ".join(map(str, block.shape)),
                f"{block.gflops:.3f}",
                f"{block.gflops / whole_gflops:.1%}",
                f"{block.parameters:,}",
            )
        )
    gflops = sum(block.gflops for block in blocks)
    rows.append(
        (
            f"{len(blocks)} together",
            "",
            "",
            f"{gflops:.3f}",
            f"{gflops / whole_gflops:.1%}",
            f"{sum(block.parameters for block in blocks):,}",
        )
    )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 3 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
