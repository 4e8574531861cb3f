import pytest
import torch
from torch import nn

from polynl_mm.recognizers.model_match import (
    check_anything_fits,
    check_complete,
    compare,
)
from polynl_mm.stack.safe_checkpoints import CheckpointError


def network(classes=3):
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


def test_same_model_fits_bare_wrapped_and_old():
    weights = network().state_dict()
    check_complete(network(), weights, "c.py", "e.pth")
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    check_complete(network(), {"state_dict": wrapped}, "c.py", "e.pth")
    del weights["1.num_batches_tracked"]
    check_complete(network(), weights, "c.py", "e.pth")


def test_another_model_names_files_counts_and_examples():
    weights = network().state_dict()
    del weights["0.bias"], weights["2.bias"]
    weights["extra"] = torch.zeros(1)
    sentence = (
        r"e\.pth is of another model than c\.py: 2 keys missing \(such as 0\.bias\), "
        r"1 keys unexpected \(such as extra\)"
    )
    with pytest.raises(CheckpointError, match=sentence):
        check_complete(network(), {"state_dict": weights}, "c.py", "e.pth")
    with pytest.raises(CheckpointError, match=r"2 keys of another shape .*2\.weight"):
        check_complete(network(7), network().state_dict(), "c.py", "e.pth")


def test_fine_tuning_needs_something_in_common():
    check_anything_fits(network(7), network().state_dict(), "c.py", "e.pth")
    part = {"0.weight": torch.zeros(5, 4)}
    check_anything_fits(network(), part, "c.py", "e.pth")
    with pytest.raises(CheckpointError, match="nothing in common"):
        check_anything_fits(network(), {"x": torch.zeros(1)}, "c.py", "e.pth")
    with pytest.raises(CheckpointError, match="dict of weights"):
        check_anything_fits(network(), torch.zeros(1), "c.py", "e.pth")


def test_modules_that_read_older_names_are_heard():
    class Renamed(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            old = prefix + "kernel"
            if old in state_dict:
                state_dict[prefix + "weight"] = state_dict.pop(old)
            super()._load_from_state_dict(state_dict, prefix, *args)

    model = nn.Sequential(Renamed(2, 2))
    weights = {"0.kernel": torch.ones(2, 2), "0.bias": torch.zeros(2)}
    match = compare(model, weights)
    assert match.exact and match.matched == 2


def test_weights_that_are_no_numbers_are_refused():
    weights = network().state_dict()
    weights["0.weight"][2, 1] = float("nan")
    weights["1.running_var"][0] = float("inf")
    sentence = r"e\.pth holds NaN or infinite numbers in 2 of its weights .*0\.weight"
    with pytest.raises(CheckpointError, match=sentence):
        check_complete(network(), weights, "c.py", "e.pth")
    with pytest.raises(CheckpointError, match=sentence):
        check_anything_fits(network(7), {"state_dict": weights}, "c.py", "e.pth")


def test_harmless_extras_and_other_normalisation():
    class Preprocessor(nn.Module):
        def __init__(self):
            super().__init__()
            mean = torch.tensor([123.675, 116.28]).view(-1, 1, 1)
            self.register_buffer("mean", mean, persistent=False)

    model = network()
    model.data_preprocessor = Preprocessor()
    weights = network().state_dict()
    extras = {"data_preprocessor.mean": torch.tensor([[[123.675]], [[116.28]]])}
    extras |= {"total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)}
    check_complete(model, weights | extras, "c.py", "e.pth")
    extras["data_preprocessor.mean"] = torch.tensor([[[0.45]], [[0.45]]])
    with pytest.raises(CheckpointError, match=r"1 keys unexpected .*processor\.mean"):
        check_complete(model, weights | extras, "c.py", "e.pth")
