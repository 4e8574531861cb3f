# Gradient checkpointing: the blocks' activations are computed again when needed.
_base_ = "i3d_imagenet-pretrained-r50-polynl_8xb8-32x2x1-100e_kinetics400-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(backbone=dict(with_cp=True))
