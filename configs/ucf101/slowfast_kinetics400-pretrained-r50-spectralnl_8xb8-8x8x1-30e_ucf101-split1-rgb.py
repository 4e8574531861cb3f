_base_ = "slowfast_kinetics400-pretrained-r50_8xb8-8x8x1-30e_ucf101-split1-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3dSlowFast",
        plugins=[
            dict(
                cfg=dict(type="SpectralNL3d"),
                stages=(False, True, True, False),
                blocks="alternate",
                pathway="slow",
            )
        ],
    )
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={"spectral_nl.alpha": dict(decay_mult=0.0)})
)
