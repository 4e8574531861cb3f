"""Every plugin, by its registered name, and how to make one that does something."""

import torch
from torch import nn

import polynl_mm

ALL_KINDS = sorted({name[:-2] for name in polynl_mm.__all__ if name.endswith("3d")})


def make(kind, dims, **arguments):
    return getattr(polynl_mm, f"{kind}{dims}d")(**arguments)


def wake(plugin):
    """Move a plugin away from the identity, in every parameter."""
    torch.manual_seed(0)
    for name, parameter in plugin.named_parameters():
        if name in ("alpha", "beta", "gamma"):
            nn.init.uniform_(parameter, 0.3, 0.6)
        elif parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return plugin
