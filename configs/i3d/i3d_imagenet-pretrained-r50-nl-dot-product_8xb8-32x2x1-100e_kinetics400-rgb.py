_base_ = "mmaction::recognition/i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3d",
        plugins=[
            dict(
                cfg=dict(
                    type="NonLocalBlock3d",
                    mode="dot_product",
                    sub_sample=True,
                    norm_cfg=dict(type="BN3d"),
                ),
                stages=(False, True, True, False),
                blocks="alternate",
            )
        ],
    )
)
