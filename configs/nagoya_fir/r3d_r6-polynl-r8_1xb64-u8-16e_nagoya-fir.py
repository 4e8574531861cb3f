_base_ = ["r3d_r6_1xb64-u8-16e_nagoya-fir.py"]

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3dSlowOnly",
        plugins=[
            dict(
                cfg=dict(
                    type="PolyNL3d",
                    axes="time",
                    reduction=8,
                    norm_cfg=dict(type="BN3d"),
                )
            )
        ],
    )
)
