_base_ = (
    "mmaction::recognition/slowonly/slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb.py"
)

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3dSlowOnly",
        plugins=[
            dict(
                cfg=dict(type="PyramidNL3d", norm_cfg=dict(type="BN3d")),
                stages=(False, True, True, False),
                blocks="alternate",
            )
        ],
    )
)
