"""Matrix products in float32 may be rounded as convolutions are, and no more."""

import subprocess
import sys

import pytest
import torch

FOLLOW = """
import torch
backends = torch.backends
{before}
from polynl_mm.stack.float32_products import let_products_follow_convolutions
let_products_follow_convolutions()
print({after})
"""
NEWER = pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"),
    reason="this torch has no fp32_precision",
)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("", "backends.cuda.matmul.allow_tf32", "True"),
        (
            "backends.cudnn.allow_tf32 = False",
            "backends.cuda.matmul.allow_tf32",
            "False",
        ),
        pytest.param(
            "backends.cudnn.conv.fp32_precision = 'ieee'\n"
            "backends.cuda.matmul.fp32_precision = 'tf32'",
            "backends.cuda.matmul.fp32_precision",
            "ieee",
            marks=NEWER,
        ),
    ],
)
def test_products_follow(before, after, said):
    """In a process of its own: the flags are those of a process."""
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW.format(before=before, after=after)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1:] == [said], done.stderr
