"""Fully sharded training (FSDP) through MMEngine's FlexibleRunner.

Mends, in MMEngine 0.10.7's FSDPStrategy: it gives FSDP a CUDA device even where there
is none, "offloads" the only copy of a CPU model to the CPU, which then crashes, hands
the optimizer's state over in an order that torch no longer takes, clips gradients by
the norm of one process's share, and ignores sync_bn, renamed and reshaped weights.
Only used by the tools, where a config's strategy is FSDPStrategy.
"""

import logging
import re
import warnings

from mmengine._strategy.fsdp import FSDP, FSDPStrategy
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS, STRATEGIES
from torch import nn
from torch.distributed.fsdp import StateDictType

from polynl_mm.user_errors import UserError


@FUNCTIONS.register_module()
def wrap_classes(
    module: nn.Module, recurse: bool, nonwrapped_numel: int, *, classes: tuple[str, ...]
) -> bool:
    """Tell FSDP to gather and free the modules of some classes one by one.

    In a config: ``auto_wrap_policy=dict(type='wrap_classes', classes=('Bottleneck3d',
    ))``. A plugin is part of the block it follows.

    Args:
        module (nn.Module): The module in question.
        recurse (bool): Whether FSDP asks if it shall look into the module.
        nonwrapped_numel (int): How many weights it has; not used.
        classes (tuple[str, ...]): Names of classes.

    Returns:
        bool: The answer.
    """
    return recurse or type(module).__name__ in classes


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """MMEngine's FSDPStrategy, made to work on CPUs, to resume and to clip gradients.

    Args:
        state_dict_cfg (str | dict): How checkpoints are written. Only ``'full'``: the
            same file as without FSDP, from the first process.
        **kwargs: As for FSDPStrategy.

    Raises:
        UserError: If checkpoints would be written in shards.
    """

    def __init__(self, *, state_dict_cfg: str | dict = "full", **kwargs):
        super().__init__(state_dict_cfg=state_dict_cfg, **kwargs)
        if self.state_dict_type != StateDictType.FULL_STATE_DICT:
            raise UserError(
                "strategy.state_dict_cfg must be 'full': test.py and --resume do not "
                "read checkpoints in shards."
            )
        if get_device() == "cpu":
            # FSDP frees the original after the copy, which here is no copy.
            self.state_dict_config.offload_to_cpu = False

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model, and remember what its weights look like as a whole."""
        model = super().build_model(model)
        self._shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
        return model

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        self.model_wrapper = dict(
            self.model_wrapper or {"type": "MMFullyShardedDataParallel"}
        )
        if get_device() == "cpu":
            self.model_wrapper.setdefault("device_id", "cpu")
        with warnings.catch_warnings():
            # MMEngine's way to choose a kind of checkpoint is on its way out of torch.
            warnings.filterwarnings("ignore", "FSDP.state_dict_type", FutureWarning)
            model = super()._wrap_model(self.convert_model(model))
        model.whole_shapes = self._shapes
        return model

    def build_optim_wrapper(self, optim_wrapper, model=None):
        """Build the optimizer wrapper, with gradients clipped by the whole norm."""
        optim_wrapper = super().build_optim_wrapper(optim_wrapper, model)
        clip = getattr(optim_wrapper, "clip_grad_kwargs", None)
        if clip and optim_wrapper.clip_func is nn.utils.clip_grad_norm_:
            # On the instance: MMEngine would not call it in a process whose share has
            # no gradients, and the others would wait for it.
            optim_wrapper._clip_grad = lambda: _clip_by_whole_norm(
                model, optim_wrapper, **clip
            )
        return optim_wrapper

    def load_model_state_dict(
        self, state_dict, *, strict=False, revise_keys=((r"^module\.", ""),)
    ) -> None:
        """Load the weights that fit, and say which are left out."""
        for pattern, replacement in revise_keys:
            state_dict = {
                re.sub(pattern, replacement, k): v for k, v in state_dict.items()
            }
        unfit = [
            key
            for key, value in state_dict.items()
            if key in self._shapes and tuple(value.shape) != self._shapes[key]
        ]
        if unfit and not strict:
            # Else torch refuses the whole checkpoint, whatever `strict` is.
            print_log(
                f"Not loaded, because their shapes differ: {', '.join(unfit)}.",
                logger="current",
                level=logging.WARNING,
            )
            state_dict = {k: v for k, v in state_dict.items() if k not in unfit}
        super().load_model_state_dict(state_dict, strict=strict)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Give each process its share of the optimizer's state."""
        optimizer = self.optim_wrapper.optimizer
        share = FSDP.optim_state_dict_to_load(self.model, optimizer, state_dict)
        self.optim_wrapper.load_state_dict(share)


def _clip_by_whole_norm(
    model, optim_wrapper, max_norm: float, norm_type: float = 2.0, **_
) -> None:
    norm = model.clip_grad_norm_(max_norm, norm_type)
    name = f"train/{optim_wrapper.grad_name}"
    optim_wrapper.message_hub.update_scalar(name, float(norm))
