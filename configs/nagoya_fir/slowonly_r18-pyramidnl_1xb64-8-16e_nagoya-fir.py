_base_ = ["slowonly_r18_1xb64-8-16e_nagoya-fir.py"]

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type="WithPlugins",
        of="ResNet3dSlowOnly",
        plugins=[dict(cfg=dict(type="PyramidNL3d", axes="time"), blocks="last")],
    )
)
