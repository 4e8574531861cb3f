_base_ = "i3d_kinetics400-pretrained-r50_8xb8-32x2x1-30e_ucf101-split1-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3d",
        plugins=[
            dict(
                cfg=dict(type="SpectralNL3d"),
                stages=(False, True, True, False),
                blocks="alternate",
            )
        ],
    )
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={"spectral_nl.alpha": dict(decay_mult=0.0)})
)
