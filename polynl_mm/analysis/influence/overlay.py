"""From maps on a network's features to maps on the frames of the video, and back.

Layers of a stride, padded on both sides, centre what they give on every so-many-th
pixel: of n features over L pixels, number k lies at pixel k L / n.
"""

import numpy as np

from polynl_mm.recognizers.traced_clip import TracedClip


def to_feature(place: tuple[int, ...], size: tuple[int, ...], grid) -> tuple[int, ...]:
    """Return the feature nearest to a place of the input.

    Args:
        place (tuple[int, ...]): Frame, row and column of the input.
        size (tuple[int, ...]): Its frames, rows and columns.
        grid (tuple[int, ...]): How many features there are along each.

    Returns:
        tuple[int, ...]: The feature, along each from 0.
    """
    return tuple(
        min(round(index * count / length), count - 1)
        for index, length, count in zip(place, size, grid, strict=True)
    )


def to_input(place: tuple[int, ...], size: tuple[int, ...], grid) -> tuple[float, ...]:
    """Return where in the input a feature lies: :func:`to_feature` the other way.

    Args:
        place (tuple[int, ...]): The feature, along each axis from 0.
        size (tuple[int, ...]): The input's frames, rows and columns.
        grid (tuple[int, ...]): How many features there are along each.

    Returns:
        tuple[float, ...]: Frame, row and column.
    """
    return tuple(
        index * length / count
        for index, length, count in zip(place, size, grid, strict=True)
    )


def to_video(clip: TracedClip, place: tuple[float, ...]) -> tuple[int, float, float]:
    """Return the frame, and x and y in the video, of a place of the input.

    Args:
        clip (TracedClip): The clip.
        place (tuple[float, ...]): Frame, row and column of the input.

    Returns:
        tuple[int, float, float]: The frame's number in the clip, x and y in pixels.
    """
    frame, row, column = place
    x = np.interp(column, np.arange(len(clip.columns)), clip.columns)
    y = np.interp(row, np.arange(len(clip.rows)), clip.rows)
    return min(round(frame), len(clip.frames) - 1), float(x), float(y)


def over_frame(clip: TracedClip, values: np.ndarray, frame: int) -> np.ndarray:
    """Return a map of features at every pixel of one of the video's frames.

    Args:
        clip (TracedClip): The clip.
        values (np.ndarray): The map, (T', H', W').
        frame (int): The frame's number in the clip.

    Returns:
        np.ndarray: (height, width) of the frame, interpolated in space, of the nearest
        features in time; NaN where the model does not look.
    """
    time = to_feature((frame, 0, 0), clip.size, values.shape)[0]
    height, width = clip.frames[frame].shape[:2]
    of_rows, unseen_rows = _weights(clip.rows, height, values.shape[1])
    of_columns, unseen_columns = _weights(clip.columns, width, values.shape[2])
    drawn = of_rows @ values[time] @ of_columns.T
    drawn[unseen_rows[:, None] | unseen_columns] = np.nan
    return drawn


def _weights(
    places: np.ndarray, pixels: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of each feature each of the video's pixels has.

    Args:
        places (np.ndarray): The pixel of the video that each of the input is from.
        pixels (int): How many the video has.
        count (int): How many features there are.

    Returns:
        tuple[np.ndarray, np.ndarray]: The weights, (pixels, count), and which pixels
        the model does not see, (pixels,).
    """
    at = np.arange(pixels)
    order = np.argsort(places)
    inputs = np.interp(at, places[order], order.astype(float))
    feature = np.clip(inputs * count / len(places), 0, count - 1)
    below = np.floor(feature).astype(int)
    above = np.minimum(below + 1, count - 1)
    weights = np.zeros((pixels, count))
    weights[at, below] += 1 - (feature - below)
    weights[at, above] += feature - below
    margin = 0.5 * np.abs(np.diff(places)).max(initial=1)
    return weights, (at < places.min() - margin) | (at > places.max() + margin)
