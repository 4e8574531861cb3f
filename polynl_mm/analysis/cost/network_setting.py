"""What is measured of whole networks; read by the command line before torch."""

from dataclasses import dataclass

MEASURES = ("latency", "training", "memory", "decoding")
NO_PLUGIN = "no plugin"
MMCV = "mmcv's NonLocal"


@dataclass(frozen=True)
class Setting:
    """What is measured, and how.

    Attributes:
        reductions (tuple[int, ...]): Of PolyNL, each a variant.
        measures (tuple[str, ...]): Some of ``MEASURES``.
        rounds (int): How many times each variant is timed, in turns.
        batch (int): Clips of a training step; latency is that of one clip.
        shape (tuple[int, ...], optional): One clip, (3, T, H, W) for a 3D recognizer,
            (T, 3, H, W) for a 2D one; None: what the config trains on.
        videos (str, optional): A folder of videos to decode; None: generated ones.
    """

    reductions: tuple[int, ...] = (1, 4, 8)
    measures: tuple[str, ...] = MEASURES
    rounds: int = 5
    batch: int = 1
    shape: tuple[int, ...] | None = None
    videos: str | None = None
