_base_ = "mmaction::recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
# MMAction2's TSMOptimWrapperConstructor gives alpha no weight decay.
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNetTSM",
        plugins=[
            dict(
                cfg=dict(type="SpectralNL3d"),
                stages=(False, True, True, False),
                blocks="alternate",
                num_segments=8,
            )
        ],
    )
)
