"""Views of clips taken from above, where no direction is up: turned, mirrored, moved.

MMAction2's own transforms have the mirror alone. Names and keys are as its transforms
have them: ``imgs`` is a list of (H, W, C) arrays, ``num_clips`` counts clips of
``clip_len`` frames.
"""

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

SYMMETRIES = 8  # of a square: four quarter turns, each mirrored or not


def turned(frame: np.ndarray, symmetry: int) -> np.ndarray:
    """Return a frame turned and mirrored.

    Args:
        frame (np.ndarray): (H, W, C) or (H, W).
        symmetry (int): 0 to 7: the quarter turns, and 4 more where it is mirrored.

    Returns:
        np.ndarray: (H, W, ...), or (W, H, ...) after an odd number of quarter turns.
    """
    frame = np.rot90(frame, symmetry % 4)
    return np.ascontiguousarray(frame[:, ::-1] if symmetry >= 4 else frame)


@TRANSFORMS.register_module()
class RandomQuarterTurn(BaseTransform):
    """Turn all frames of a sample by the same quarter turns and mirror them, or not.

    Each of the eight symmetries of a square is equally frequent. Reads and writes
    ``imgs``; writes ``img_shape`` and ``symmetry``.
    """

    def transform(self, results: dict) -> dict:
        """Turn the frames of one sample.

        Args:
            results (dict): With ``imgs``.

        Returns:
            dict: The same.
        """
        symmetry = int(np.random.randint(SYMMETRIES))
        results["imgs"] = [turned(frame, symmetry) for frame in results["imgs"]]
        results["img_shape"] = results["imgs"][0].shape[:2]
        results["symmetry"] = symmetry
        return results


@TRANSFORMS.register_module()
class RandomShift(BaseTransform):
    """Move all frames of a sample by the same few pixels, repeating the border.

    Reads and writes ``imgs``.

    Args:
        pixels (int): The most that they are moved along either axis, from 1.

    Raises:
        ValueError: If ``pixels`` is no whole number from 1.
    """

    def __init__(self, pixels: int) -> None:
        if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 1:
            raise ValueError(
                f"RandomShift: pixels is a whole number from 1, not {pixels!r}."
            )
        self.pixels = pixels

    def transform(self, results: dict) -> dict:
        """Move the frames of one sample.

        Args:
            results (dict): With ``imgs``.

        Returns:
            dict: The same.
        """
        height, width = results["imgs"][0].shape[:2]
        down, right = np.random.randint(-self.pixels, self.pixels + 1, 2)
        rows = np.clip(np.arange(height) - down, 0, height - 1)[:, None]
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        results["imgs"] = [frame[rows, columns] for frame in results["imgs"]]
        return results


@TRANSFORMS.register_module()
class EightSymmetries(BaseTransform):
    """Make eight views of each clip: all quarter turns, mirrored and not.

    For testing: the head averages over views as over clips. Frames have to be square.
    Reads and writes ``imgs`` and ``num_clips``.
    """

    def transform(self, results: dict) -> dict:
        """Replace the clips of one sample by their views.

        Args:
            results (dict): With ``imgs`` and ``num_clips``.

        Returns:
            dict: The same.

        Raises:
            ValueError: If the frames are not square.
        """
        height, width = results["imgs"][0].shape[:2]
        if height != width:
            raise ValueError(
                "EightSymmetries: a frame has to be square to be turned, but these are "
                f"{height} x {width} pixels; crop or resize them before."
            )
        frames = results["imgs"]
        results["imgs"] = [turned(f, s) for s in range(SYMMETRIES) for f in frames]
        results["num_clips"] *= SYMMETRIES
        return results
