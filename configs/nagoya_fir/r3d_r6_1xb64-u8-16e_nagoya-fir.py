# With temporal kernels: every residual block compares neighbouring frames.
_base_ = ["slowonly_r6_1xb32-u8-8e_nagoya-fir.py"]

custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
model = dict(backbone=dict(conv1_kernel=(3, 3, 3), inflate=(1, 1)))
# Overfits less in larger batches, and needs longer.
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
train_cfg = dict(max_epochs=16, val_interval=16)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(
        type="CosineAnnealingLR",
        T_max=16,
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
