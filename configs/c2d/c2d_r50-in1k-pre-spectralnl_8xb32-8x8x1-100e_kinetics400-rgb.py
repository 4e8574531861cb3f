_base_ = (
    "mmaction::recognition/c2d/c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb.py"
)

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
# C2D halves the 8 frames after its first stage: num_segments=4.
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="C2D",
        plugins=[
            dict(
                cfg=dict(type="SpectralNL3d"),
                stages=(False, True, True, False),
                blocks="alternate",
                num_segments=4,
            )
        ],
    )
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={"spectral_nl.alpha": dict(decay_mult=0.0)})
)
