# Batch norm over the clips of all GPUs, in the backbone and in the plugins.
_base_ = "i3d_imagenet-pretrained-r50-spectralnl_8xb8-32x2x1-100e_kinetics400-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        plugins=[
            dict(
                cfg=dict(type="SpectralNL3d", norm_cfg=dict(type="SyncBN")),
                stages=(False, True, True, False),
                blocks="alternate",
            )
        ],
    )
)
