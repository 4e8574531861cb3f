# Mixed precision: float16 with a loss scale that follows the gradients.
_base_ = "i3d_imagenet-pretrained-r50-polynl_8xb8-32x2x1-100e_kinetics400-rgb.py"

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
optim_wrapper = dict(type="AmpOptimWrapper", loss_scale="dynamic")
