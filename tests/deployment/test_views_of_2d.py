"""Views that a 2D recognizer cannot take are refused with what would work."""

import pytest
from torch import nn

from polynl_mm.deployment.onnx_export import check_view
from polynl_mm.user_errors import UserError


class Shift(nn.Module):
    num_segments = 8


class Recognizer2D(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.backbone = nn.Sequential(*layers)


def test_frames_come_by_whole_clips():
    with pytest.raises(
        UserError, match=r"7 frames, .* takes them by 8 .* multiple of 8"
    ):
        check_view(Recognizer2D(Shift()), (7, 3, 32, 32))
    check_view(Recognizer2D(Shift()), (16, 3, 32, 32))
    check_view(Recognizer2D(nn.ReLU()), (7, 3, 32, 32))
