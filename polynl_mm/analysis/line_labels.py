"""Names at the ends of lines, moved apart where they would cover each other."""

from dataclasses import dataclass

from matplotlib.axes import Axes


@dataclass(frozen=True)
class Label:
    """A name that belongs at a point.

    Attributes:
        x (float): The point, in the units of the axes.
        y (float): So, too.
        text (str): The name.
        colour (str): Of the name, as of its line.
        bold (bool): Whether it is what the picture is about.
    """

    x: float
    y: float
    text: str
    colour: str
    bold: bool = False


def label_lines(
    axes: Axes, labels: list[Label], size: float = 8.5, x: float | None = None
) -> None:
    """Write names to the right of their points, one below the other.

    The limits of the axes must have been set: later changes would move the points.

    Args:
        axes (Axes): Where.
        labels (list[Label]): What, at which points.
        size (float): Of the letters, in points.
        x (float | None): Where all names begin, as a share of the width of the axes;
            by default beside each point. Names that were moved get a thin line to
            their points.
    """
    if not labels:
        return
    height = axes.get_position().height * axes.figure.get_figheight() * 72
    step = size * 1.25 / height
    # Shares of the height of the axes, whatever the scale is.
    to_axes = axes.transData + axes.transAxes.inverted()
    points = [to_axes.transform((label.x, label.y)) for label in labels]
    order = sorted(range(len(labels)), key=lambda index: points[index][1])
    heights = _apart([points[index][1] for index in order], step)
    for index, y in zip(order, heights, strict=True):
        label, (px, py) = labels[index], points[index]
        start = px + 0.015 if x is None else x
        if x is not None and (abs(y - py) > step / 4 or start - px > 0.06):
            axes.plot(
                [px + 0.008, start - 0.008],
                [py, y],
                color=label.colour,
                linewidth=0.5,
                alpha=0.7,
                transform=axes.transAxes,
                clip_on=False,
            )
        axes.text(
            start,
            y,
            label.text,
            color=label.colour,
            fontsize=size,
            fontweight="bold" if label.bold else "normal",
            va="center",
            transform=axes.transAxes,
            clip_on=False,
        )


def _apart(heights: list[float], step: float) -> list[float]:
    """Move rising heights apart by at least a step, and as little as that takes."""
    groups: list[list[float]] = []  # middle, number of members
    for height in heights:
        groups.append([height, 1])
        while len(groups) > 1:
            (low, few), (high, more) = groups[-2:]
            if high - low >= step * (few + more) / 2:
                break
            middle = (low * few + high * more) / (few + more)
            groups[-2:] = [[middle, few + more]]
    moved = [
        middle + step * (place - (number - 1) / 2)
        for middle, number in groups
        for place in range(int(number))
    ]
    # Above the axes stands their title.
    last = len(moved) - 1
    return [min(y, 0.99 - step * (last - place)) for place, y in enumerate(moved)]
