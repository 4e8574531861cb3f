"""Softmax blocks at any scale of the features: no less exact than the dense form.

A flat softmax has logits that hardly differ, a sharp one a single weight near 1; the
gradients of both are differences of terms that nearly cancel. The measure is the error
of the reference, made in float32, against the reference in float64.
"""

from functools import partial

import pytest
import torch
from random_tensors import name_case

from polynl_mm.ops import criss_cross, factored, pairwise, pyramid, reference, spectral
from polynl_mm.ops.pyramid import pool_regions

SCALES = [1e-3, 1e-1, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5]
B, K, N = 60, 12, 60
SHAPE = (3, 4, 5)


def features(scale):
    """Return theta, phi and g as ReLU features project to them, in float64."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(B, K, N, generator=generator).relu().double() * scale
    weights = torch.randn(3, K, K, generator=generator).double() * 0.3
    return [w @ x for w in weights]


def gaussian_of_features(gaussian):
    """``mode='gaussian'``: queries and keys are the features themselves."""
    return lambda theta, phi, g: gaussian(theta, theta, g)


GRIDS = [(1, 2, 2), (2, 3, 3)]
WEIGHT = torch.randn(3, K, K, generator=torch.Generator().manual_seed(1)).double()
PAIRS = {
    "gaussian": (
        gaussian_of_features(pairwise.gaussian),
        gaussian_of_features(reference.gaussian),
    ),
    "embedded_gaussian": (pairwise.gaussian, reference.gaussian),
    "non_local_stage": (pairwise.non_local_stage, reference.non_local_stage),
    "double_attention": (factored.double_attention, reference.double_attention),
    "efficient_attention": (
        factored.efficient_attention,
        reference.efficient_attention,
    ),
    "global_context": (
        lambda theta, phi, g: factored.global_context(theta[:, :1], g),
        lambda theta, phi, g: reference.global_context(theta[:, :1], g),
    ),
    "criss_cross": (
        partial(criss_cross.criss_cross, shape=SHAPE),
        partial(reference.criss_cross, shape=SHAPE),
    ),
    "pyramid": (
        lambda theta, *t: pyramid.pyramid_non_local(
            theta, *(pool_regions(x, SHAPE, GRIDS) for x in t)
        ),
        partial(reference.pyramid_non_local, shape=SHAPE, grids=GRIDS),
    ),
    "spectral_softmax": tuple(
        lambda *t, m=module: m.spectral_softmax(*t, WEIGHT.to(t[0].dtype))
        for module in (spectral, reference)
    ),
}
PATHS = {
    "usual": {},
    "chunked": {"has_fused_kernel": lambda *_: False, "_CHUNK": 500},
}


def gradients(function, tensors, dtype):
    leaves = [t.to(dtype).requires_grad_() for t in tensors]
    y = function(*leaves)
    generator = torch.Generator().manual_seed(5)
    cotangent = torch.randn(y.shape, generator=generator).to(dtype)
    found = torch.autograd.grad(y, leaves, cotangent, allow_unused=True)
    return [f.double() for f in found if f is not None]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scale", SCALES, ids=name_case)
@pytest.mark.parametrize("name", PAIRS)
def test_gradients_are_as_exact_as_the_dense_forms(name, scale, path, monkeypatch):
    for attribute, value in PATHS[path].items():
        monkeypatch.setattr(pairwise, attribute, value)
    tensors = features(scale)
    fast, slow = PAIRS[name]
    exact = gradients(slow, tensors, torch.float64)
    found = gradients(fast, tensors, torch.float32)
    dense = gradients(slow, tensors, torch.float32)
    for is_, should, plain in zip(found, exact, dense, strict=True):
        error, usual, size = (
            t.flatten(1).norm(dim=1) for t in (is_ - should, plain - should, should)
        )
        assert error.isfinite().all()
        # The median: in some samples two logits nearly tie, and rounding decides.
        assert error.median() <= 3 * usual.median() + 1e-6 * size.median()
