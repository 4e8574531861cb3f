"""One colour for each block and each role, in every picture that the package draws.

A reader sees ours, what users have now and the floor; the rest is grey. The hues are
those of Okabe and Ito, which the colour-blind tell apart.
"""

import re
from collections.abc import Sequence

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that white hides.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
# The middle greys are read on a white and on a black page.
BLACK, GREY, PALE = "#222222", "#7F7F7F", "#B0B0B0"

OURS, NOW, FLOOR, REST = BLUE, VERMILION, BLACK, GREY
# What a name has in it, without marks and spaces: its colour. The first that fits.
_ROLES = (
    ("polynlasthreeconvolutions", SKY),
    ("polynl", OURS),
    ("conv1x1x1", FLOOR),
    ("mmcv", NOW),
    ("noplugin", REST),
    ("embeddedgaussian", VERMILION),
    ("dotproduct", GREEN),
    ("spectralnl", PURPLE),
    ("nonlocalblock", VERMILION),
)
_OTHERS = (GREEN, PURPLE, ORANGE, SKY, VERMILION, BLACK)
DASHES = ("-", "--", ":", "-.")


def colour_of(name: str, default: str = REST) -> str:
    """Return the colour of a block, a peer or a run by its name.

    Args:
        name (str): Such as ``PolyNL3d``, ``mmcv NonLocal3d`` or ``runs/poly_nl``.
        default (str): Of names without a role.

    Returns:
        str: Such as ``#0072B2``.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((colour for part, colour in _ROLES if part in plain), default)


def distinct_styles(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return a colour and a dash for each of several lines, no two alike.

    Args:
        names (Sequence[str]): What the lines are called.

    Returns:
        list[tuple[str, str]]: A colour, and one of matplotlib's line styles. A name
        with a role has its colour; the others share what is left of the palette.
    """
    colours = [colour_of(name, "") for name in names]
    free = [colour for colour in _OTHERS if colour not in colours] or list(_OTHERS)
    used: dict[str, int] = {}
    unnamed, styles = 0, []
    for colour in colours:
        if not colour:
            colour, unnamed = free[unnamed % len(free)], unnamed + 1
        times = used[colour] = used.get(colour, -1) + 1
        styles.append((colour, DASHES[times % len(DASHES)]))
    return styles
