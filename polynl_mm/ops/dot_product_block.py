"""The whole non-local block with dot products, from its features, by one Gram matrix.

``pairwise.dot_product`` takes the projections theta, phi and g, which are three times
half the size of the features. But the block is linear in what it multiplies::

    S = g phi^T / N = W_g G W_phi^T        with G = X X^T / N
    y = out S theta = (W_out S W_theta) X

so that it is one matrix a sample, applied to X, and no projection is made. Biases ride
along as a last column of each weight, and a row of ones below X.
"""

from torch import Tensor

from polynl_mm.ops.gram import apply_matrix, gram, symmetric_share, with_bias
from polynl_mm.ops.precision import compute_dtype, without_autocast
from polynl_mm.ops.summaries import Holder, mean_of_all

Projection = tuple[Tensor, Tensor | None]


def dot_product_block(
    x: Tensor,
    theta: Projection,
    phi: Projection,
    g: Projection,
    out: Projection,
    *,
    residual: bool = True,
    others: Holder | None = None,
) -> Tensor:
    """Compute the non-local block with dot products, in time linear in the positions.

    Equal to projecting, ``reference.dot_product`` and projecting back, up to rounding.
    Source: Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.2; the
    schedule is ours.

    Args:
        x (Tensor): Features, (B, C, N).
        theta (tuple[Tensor, Tensor | None]): Weight, (K, C), and bias, (K,), of the
            queries' projection.
        phi (tuple[Tensor, Tensor | None]): Those of the keys.
        g (tuple[Tensor, Tensor | None]): Those of the values.
        out (tuple[Tensor, Tensor | None]): Weight, (C, K), and bias, (C,).
        residual (bool): Add ``x``.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: (B, C, N); without the residual, of the type in which the products are
        made, else of the type of ``x``.
    """
    dtype = compute_dtype(x)
    with without_autocast(x):
        moments, features = gram(  # (B, C + 1, C + 1)
            x.to(dtype), with_mean=True, is_applied=True
        )
        of_theta, of_phi, of_g = (
            with_bias(*projection, moments.dtype) for projection in (theta, phi, g)
        )
        weight, bias = (None if t is None else t.to(moments.dtype) for t in out)
        attended = of_g @ moments @ of_phi.mT  # (B, K, K)
        if others is not None:
            attended = mean_of_all(others, attended, x.shape[2])
        affine = weight @ attended @ of_theta  # (B, C, C + 1)
        matrix, shift = affine[..., :-1], affine[..., -1]
        shift = shift if bias is None else shift + bias
        # Autocast multiplies in another type than the residual has.
        together = residual and dtype == x.dtype
        y = apply_matrix(features, matrix, x.new_ones(1) if together else None, shift)
        return x + y if residual and not together else y


def is_cheaper(channels: int, inner: int, positions: int, training: bool) -> bool:
    """Return whether the Gram matrix takes fewer operations than the projections.

    Args:
        channels (int): C.
        inner (int): K.
        positions (int): N.
        training (bool): Whether a backward pass will follow.

    Returns:
        bool: As a rule True for the usual K = C / 2 where N is at least C.
    """
    projected = (4 * channels + 2 * inner) * inner * positions
    applied = channels * channels * positions
    small = 2 * (channels + inner) * inner * channels
    if training:
        backward = 3 * applied + 2 * small
        return symmetric_share(channels) * applied + applied + small + backward < (
            3 * projected
        )
    return (1 + symmetric_share(channels)) * applied + small < projected
