# FSDP small enough to try on two CPU cores; see docs/distributed.md.
_base_ = "slowonly_r18-polynl_2xb16-8x2x1-5e_bookends-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
runner_type = "FlexibleRunner"
strategy = dict(
    type="FSDPStrategy",
    model_wrapper=dict(
        type="MMFullyShardedDataParallel",
        auto_wrap_policy=dict(type="wrap_classes", classes=("BasicBlock3d",)),
    ),
    state_dict_cfg="full",
)
