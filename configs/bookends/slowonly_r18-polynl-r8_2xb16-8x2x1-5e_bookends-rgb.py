_base_ = ["slowonly_r18_2xb16-8x2x1-5e_bookends-rgb.py"]

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3dSlowOnly",
        plugins=[
            dict(
                cfg=dict(type="PolyNL3d", reduction=8),
                stages=(True, False),
                blocks="last",
            )
        ],
    )
)
