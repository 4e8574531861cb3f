"""Puts matrix products and convolutions in float32 under one rule on GPUs.

Mends: torch lets cuDNN's convolutions use TF32 by default and matrix products not, so
that a block made of products is more exact than the convolutions around it, and up to
eight times slower than the three convolutions that it replaces.
"""

import torch


def let_products_follow_convolutions() -> None:
    """Let matrix products on GPUs use TF32 if, and only if, convolutions may.

    ``torch.backends.cudnn.allow_tf32 = False`` before keeps both exact. Who uses
    torch's newer ``fp32_precision`` is followed in that.
    """
    backends = torch.backends
    try:
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32
    except RuntimeError:  # the newer interface has been used, and is not to be mixed
        backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision
