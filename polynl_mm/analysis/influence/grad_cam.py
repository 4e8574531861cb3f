"""Grad-CAM of any module: where what it gives speaks for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. MMAction2 has one, too; it leaves the model changed, has the
layers' paths in another notation, and gives no numbers but those of its picture.
"""

import torch
from torch import Tensor

from polynl_mm.analysis.influence.in_model import Pass
from polynl_mm.user_errors import UserError


def grad_cam(seen: Pass) -> Tensor:
    """Return the map of a module's features by the gradient of a class score.

    A channel weighs as much as its gradient's mean over the positions of a clip; of a
    network of images, each frame is its own.

    Args:
        seen (Pass): What a forward pass has shown of the module.

    Returns:
        Tensor: (B, *positions), not negative. It is in units of the score: the mean
        over the channels is not taken.

    Raises:
        UserError: If the module gives no features with positions.
    """
    output, gradient = seen.output, seen.gradient
    if output.dim() not in (4, 5):
        raise UserError(
            f"The module gives values of shape {tuple(output.shape)}; Grad-CAM needs "
            "features, (B, C, H, W) or (B, C, T, H, W); name a module of the backbone."
        )
    weights = gradient.flatten(2).mean(dim=2)  # (B, C)
    return torch.einsum("bc,bc...->b...", weights, output).relu()
