# With temporal kernels: every residual block compares neighbouring frames.
_base_ = ["slowonly_r18_1xb64-8-16e_nagoya-fir.py"]

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(backbone=dict(conv1_kernel=(3, 3, 3), inflate=(1, 1)))
