"""What a benchmark of the plugins measures; read by its command line before torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """What is measured, and how.

    Attributes:
        channels (int): C.
        clip_lengths (tuple[int, ...]): T of each point of the sweep.
        size (int): H and W.
        batch (int): B.
        dtype (str): ``'float32'``, or ``'bfloat16'`` or ``'float16'`` under autocast.
        device (str): ``'cpu'`` or ``'cuda'``.
        repeats (int): How many times each subject is timed, in turns.
        compiled (bool): Measure the plugins through ``torch.compile`` (inductor,
            ``fullgraph=True``); the peers stay as they are.
        replayed (bool): On CUDA: capture each call in a CUDA graph and time its
            replays, which no launching of kernels slows down.
        max_affinity (float): Bytes: quadratic subjects are left out of points where
            one matrix of positions by keys would be larger.
    """

    channels: int = 256
    clip_lengths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    size: int = 28
    batch: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    repeats: int = 5
    compiled: bool = False
    replayed: bool = False
    max_affinity: float = 0.7e9

    def positions(self, clip_len: int) -> int:
        """Return N for a clip length."""
        return clip_len * self.size**2
