"""What each position contributes to a plugin's update of one position, exactly.

A plugin adds an update to its features, and the update of a position i is a sum over
the positions j that it looks at, and a constant (biases, the shift of a norm). The
terms are computed for the chosen i alone, in time and memory linear in the positions
wherever the plugin's own are.

What is no sum is held as it is for this very input, so that the terms still add up to
the update: the statistics of a GroupNorm or LayerNorm are numbers, and a ReLU passes
the channels that it passes (the terms are those before the ReLU, in these channels).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polynl_mm.analysis.influence import blocks
from polynl_mm.analysis.influence.query import Query
from polynl_mm.plugins import Plugin
from polynl_mm.plugins.compact_generalized_nl import _CompactGeneralizedNL
from polynl_mm.plugins.criss_cross import _CrissCross
from polynl_mm.plugins.double_attention import _DoubleAttention
from polynl_mm.plugins.efficient_attention import _EfficientAttention
from polynl_mm.plugins.global_context import _GlobalContext
from polynl_mm.plugins.non_local import _NonLocalBlock
from polynl_mm.plugins.pointwise import _Pointwise
from polynl_mm.plugins.poly_nl import _PolyNL
from polynl_mm.plugins.pyramid_nl import _PyramidNL
from polynl_mm.plugins.stacked_units import StackedUnits

# What a plugin contributes, as (terms, constant) of one group of positions.
Terms = Callable[[Plugin, Query], tuple[Tensor, Tensor]]
BLOCKS: dict[type[Plugin], Terms] = {
    _PolyNL: blocks.poly_nl,
    _NonLocalBlock: blocks.non_local,
    _PyramidNL: blocks.pyramid,
    StackedUnits: blocks.stacked_units,
    _DoubleAttention: blocks.efficient_attention,
    _EfficientAttention: blocks.efficient_attention,
    _GlobalContext: blocks.global_context,
    _CompactGeneralizedNL: blocks.compact_generalized,
    _CrissCross: blocks.criss_cross,
    _Pointwise: blocks.pointwise,
}


@dataclass(frozen=True)
class Contributions:
    """What each position contributes to the update of one.

    Attributes:
        at (tuple[int, ...]): The position that is updated, (y, x) or (t, y, x).
        terms (Tensor): The contribution of each position, (C, *positions); zero where
            the plugin does not look.
        constant (Tensor): What no position contributes: biases, shifts, (C,).
    """

    at: tuple[int, ...]
    terms: Tensor
    constant: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of the terms over all positions, (C,)."""
        return self.terms.flatten(1).sum(dim=1)

    @property
    def update(self) -> Tensor:
        """What the plugin adds to the position: the terms and the constant, (C,)."""
        return self.total + self.constant

    @property
    def shares(self) -> Tensor:
        """The signed share of each position, (*positions), which add up to 1.

        A share is the term's projection onto the sum of all terms, over the length of
        that sum. Where the sum is zero, so are the shares.
        """
        total = self.total
        length = total.square().sum()
        if length == 0:
            return torch.zeros_like(self.terms[0])
        return self.toward(total / length)

    @property
    def norms(self) -> Tensor:
        """The length of each position's term, (*positions)."""
        return torch.linalg.vector_norm(self.terms, dim=0)

    def toward(self, direction: Tensor) -> Tensor:
        """Return the inner product of each position's term with a direction.

        Args:
            direction (Tensor): Such as the gradient of a class score with respect to
                the update of the position, (C,).

        Returns:
            Tensor: (*positions).
        """
        return torch.tensordot(direction.to(self.terms.dtype), self.terms, dims=1)


def contributions(plugin: Plugin, x: Tensor, at: tuple[int, ...]) -> Contributions:
    """Compute what each position contributes to a plugin's update of one of them.

    Args:
        plugin (Plugin): Any plugin of this package, in evaluation mode.
        x (Tensor): The features of one sample that go into it, (C, *positions).
        at (tuple[int, ...]): The position that is updated, (y, x) or (t, y, x), each
            from 0.

    Returns:
        Contributions: The terms, and what is constant. Their sum is the update, which
        is ``plugin(x) - x``, and ``plugin(x) - beta x`` for Poly-NL, whose ``beta x``
        is its own residual.

    Raises:
        ValueError: If the plugin is of no known type, is in training mode, or the
            position is not among those of ``x``.
    """
    terms_of = _find_terms(plugin)
    if plugin.training:
        raise ValueError(
            f"{type(plugin).__name__} is in training mode, in which its norms look at "
            "the whole batch; call eval() on the model first."
        )
    plugin.check_input(x.unsqueeze(0))
    sizes = tuple(x.shape[1:])
    if len(at) != len(sizes) or not all(
        0 <= place < size for place, size in zip(at, sizes, strict=True)
    ):
        raise ValueError(
            f"The position {tuple(at)} is not among those of features of "
            f"{' x '.join(map(str, sizes))} positions; count each from 0."
        )
    with torch.no_grad():
        terms, constant = _by_temporal_groups(terms_of, plugin, x, tuple(at))
    return Contributions(tuple(at), terms, constant)


def update_of(plugin: Plugin, x: Tensor, output: Tensor) -> Tensor:
    """Return what a plugin has added to its features.

    Args:
        plugin (Plugin): The plugin.
        x (Tensor): What went in, (B, C, *positions).
        output (Tensor): What came out, of the same shape.

    Returns:
        Tensor: (B, C, *positions).
    """
    return output - x * plugin.beta if isinstance(plugin, _PolyNL) else output - x


def _find_terms(plugin: Plugin) -> Terms:
    for kind, terms_of in BLOCKS.items():
        if isinstance(plugin, kind):
            return terms_of
    raise ValueError(
        f"What a position contributes is not known of {type(plugin).__name__}; it is "
        f"of {', '.join(kind.__name__.strip('_') for kind in BLOCKS)}."
    )


def _by_temporal_groups(
    terms_of: Terms, plugin: Plugin, x: Tensor, at: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Compute the terms within the clip that the position is in."""
    groups = getattr(plugin, "temporal_groups", 1)
    frames = x.shape[1] // groups
    first = at[0] // frames * frames if groups > 1 else 0
    seen = slice(first, first + frames)
    clip = x[:, seen] if groups > 1 else x
    here = (at[0] - first, *at[1:])
    query = Query(plugin, clip, here, x.unsqueeze(0), first // frames)
    terms, constant = terms_of(plugin, query)
    terms = query.to_positions(terms)
    if groups > 1:
        whole = terms.new_zeros(len(terms), *x.shape[1:])
        whole[:, seen] = terms
        terms = whole
    return terms, constant
