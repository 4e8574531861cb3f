_base_ = ["slowonly_r6_1xb32-u8-8e_nagoya-fir.py"]

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
                ),
                stages=(False, True),
            )
        ],
    )
)
