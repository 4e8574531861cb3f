"""The one measure by which a fast form equals its reference."""

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def assert_close(fast: Tensor, reference: Tensor, name: str) -> None:
    """Compare relative to the largest magnitude of the reference."""
    assert fast.shape == reference.shape, f"{name}: {fast.shape} != {reference.shape}"
    assert fast.dtype == reference.dtype, f"{name}: {fast.dtype} != {reference.dtype}"
    scale = reference.abs().max().clamp_min(torch.finfo(reference.dtype).tiny)
    error = ((fast - reference).abs().max() / scale).item()
    tolerance = TOLERANCE[reference.dtype]
    assert error <= tolerance, f"{name}: relative error {error:.1e} > {tolerance:.0e}"


def assert_equal_to_reference(fast, reference, tensors: dict[str, Tensor]) -> None:
    """Assert that outputs and every gradient of two functions are close.

    The cotangent has the signs of the output, so that the gradient of a single number,
    such as a scale, is a sum that does not cancel to rounding.
    """
    expected, expected_gradients = _differentiate(reference, tensors)
    output, gradients = _differentiate(fast, tensors)
    assert_close(output, expected, "output")
    largest = max(g.abs().max() for g in expected_gradients.values())
    rounding = 1e3 * torch.finfo(output.dtype).eps * largest
    for name, gradient in gradients.items():
        if expected_gradients[name].abs().max() <= rounding:
            # Zero by symmetry, as a bias before a softmax: only rounding is left.
            assert gradient.abs().max() <= rounding, f"gradient of {name} is not zero"
        else:
            assert_close(gradient, expected_gradients[name], f"gradient of {name}")


def _differentiate(function, tensors: dict[str, Tensor]):
    leaves = {k: v.detach().requires_grad_() for k, v in tensors.items()}
    output = function(**leaves)
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(output.shape, generator=generator).to(output.dtype)
    cotangent = output.detach().sign() * size
    gradients = torch.autograd.grad(output, list(leaves.values()), cotangent)
    return output.detach(), dict(zip(leaves, gradients, strict=True))
