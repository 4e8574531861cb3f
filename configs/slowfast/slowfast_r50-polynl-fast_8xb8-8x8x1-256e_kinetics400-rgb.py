_base_ = (
    "mmaction::recognition/slowfast/slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb.py"
)

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3dSlowFast",
        plugins=[
            dict(
                cfg=dict(type="PolyNL3d"),
                stages=(False, True, True, False),
                blocks="alternate",
                pathway="fast",
            )
        ],
    )
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            "poly_nl.alpha": dict(decay_mult=0.0),
            "poly_nl.beta": dict(decay_mult=0.0),
        }
    )
)
auto_scale_lr = dict(enable=False, base_batch_size=64)  # 8 GPUs x 8 clips
