# The same training with weights, gradients and optimizer state shared out to the
# processes (FSDP); see docs/distributed.md.
_base_ = "slowonly_r50-polynl_8xb16-8x8x1-256e_kinetics400-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
runner_type = "FlexibleRunner"
strategy = dict(
    type="FSDPStrategy",
    model_wrapper=dict(
        type="MMFullyShardedDataParallel",
        # Gathered and freed one residual block at a time, with the plugin after it.
        auto_wrap_policy=dict(type="wrap_classes", classes=("Bottleneck3d",)),
    ),
    # One file as without FSDP, from the first process.
    state_dict_cfg="full",
)
