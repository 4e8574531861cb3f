"""What a comparison of plugins measures; read by its command line before torch."""

from dataclasses import dataclass

EXAMPLE = 'PolyNL3d "NonLocalBlock3d(mode=dot_product)"'


@dataclass(frozen=True)
class Setting:
    """What is measured, and how.

    Attributes:
        shape (tuple[int, ...]): One clip: (3, T, H, W) of a 3D recognizer, or
            (T, 3, H, W) of a 2D one.
        batch (int): Clips of the training step that is timed.
        rounds (int): How many times each choice has its turn.
        device (str): ``'cpu'`` or ``'cuda'``.
        budget (int | None): Bytes that a training step may hold.
        verify (bool): Find the largest batch and the longest clip by training with
            them and with the next ones, not by prediction alone.
        flat (bool): Whether the clip is one of a 2D recognizer.
    """

    shape: tuple[int, ...]
    batch: int = 1
    rounds: int = 3
    device: str = "cpu"
    budget: int | None = None
    verify: bool = False
    flat: bool = False

    @property
    def frames(self) -> int:
        """T."""
        return self.shape[0 if self.flat else 1]

    def clip(self, frames: int) -> tuple[int, ...]:
        """Return the shape of a clip of another length."""
        place = 0 if self.flat else 1
        return (*self.shape[:place], frames, *self.shape[place + 1 :])
