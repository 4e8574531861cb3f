_base_ = "mmaction::recognition/i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3d",
        plugins=[
            dict(
                cfg=dict(type="PolyNL3d"),
                stages=(False, True, True, False),
                blocks="all",
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
