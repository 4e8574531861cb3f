"""Refusing lengths of clips that cannot be shared equally, naming those that can."""

from polynl_mm.user_errors import UserError


class UnevenSharesError(UserError):
    """A rank's share of a clip does not divide at some layer.

    Args:
        layer (str): Which one.
        frames (int): How many frames of a rank reach it.
        stride (int): What would have to divide them.
    """

    def __init__(self, layer: str, frames: int, stride: int):
        self.layer, self.frames, self.stride = layer, frames, stride
        super().__init__(
            f"A rank's share of a clip has {frames} frames where {layer} takes every "
            f"{stride}th."
        )
