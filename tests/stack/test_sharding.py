"""What of FSDP needs no second process."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from polynl_mm.recognizers.configs import build_runner, is_sharded, unshard
from polynl_mm.stack.sharding import ShardedStrategy, wrap_classes
from polynl_mm.user_errors import UserError


def sharded_config(**more):
    strategy = dict(type="FSDPStrategy", state_dict_cfg="full")
    return Config(dict(runner_type="FlexibleRunner", strategy=strategy, **more))


def test_one_process_evaluates_the_whole_model():
    cfg = sharded_config(launcher="none")
    unshard(cfg)
    assert "runner_type" not in cfg and "strategy" not in cfg
    cfg = sharded_config(launcher="pytorch")
    unshard(cfg)
    assert is_sharded(cfg)
    assert not is_sharded(Config(dict(strategy=dict(type="DDPStrategy"))))


def test_one_process_cannot_train():
    with pytest.raises(UserError, match=r"single one; train with tools/dist_train"):
        build_runner(sharded_config(launcher="none"))


def test_checkpoints_in_shards_are_refused(tmp_path):
    with pytest.raises(UserError, match="state_dict_cfg must be 'full'"):
        ShardedStrategy(
            state_dict_cfg="local",
            work_dir=str(tmp_path),
            env_kwargs=dict(launcher="none"),
        )


def test_classes_are_wrapped_by_name():
    inner, outer = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))
    options = dict(nonwrapped_numel=1, classes=("Linear",))
    assert wrap_classes(inner, False, **options)
    assert not wrap_classes(outer, False, **options)
    assert wrap_classes(outer, True, **options)


def test_weights_of_another_head_are_left_out():
    strategy = ShardedStrategy.__new__(ShardedStrategy)
    strategy.model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3)})
    strategy._shapes = {
        name: tuple(value.shape) for name, value in strategy.model.state_dict().items()
    }
    head = strategy.model["head"].weight.clone()
    strategy.load_model_state_dict(
        {"module.body.weight": torch.ones(2, 2), "module.head.weight": torch.ones(5, 2)}
    )
    assert torch.equal(strategy.model["body"].weight, torch.ones(2, 2))
    assert torch.equal(strategy.model["head"].weight, head)
