import pytest
import torch
from mmengine.device import get_device

from polynl_mm.recognizers.devices import chosen_device
from polynl_mm.user_errors import UserError


def test_what_is_there_is_taken():
    assert chosen_device(None) == get_device()
    assert chosen_device("cpu") == "cpu"


@pytest.mark.parametrize("given", ["cudda", "cuda:77", "cuda", "mps:3", "-1", ""])
def test_what_is_not_there_is_said_in_a_sentence(given):
    if given == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match=f"--device {given} cannot be used") as caught:
        chosen_device(given)
    assert "\n" not in str(caught.value)
