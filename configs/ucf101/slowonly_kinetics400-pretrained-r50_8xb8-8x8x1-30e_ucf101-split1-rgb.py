# Fine-tuning on UCF-101, from MMAction2's Kinetics-400 weights of the same model.
_base_ = (
    "mmaction::recognition/slowonly/slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb.py"
)

# Nothing below needs it, but it makes the pinned packages work together.
custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
load_from = "https://download.openmmlab.com/mmaction/v1.0/recognition/slowonly/slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb/slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb_20220901-2132fc87.pth"
model = dict(backbone=dict(pretrained=None), cls_head=dict(num_classes=101))

data_root = data_root_val = "data/ucf101/videos"
data_prefix = dict(video=data_root)
ann_file_train = "data/ucf101/ucf101_train_split_1_videos.txt"
ann_file_val = ann_file_test = "data/ucf101/ucf101_val_split_1_videos.txt"
train_dataloader = dict(
    batch_size=8, dataset=dict(ann_file=ann_file_train, data_prefix=data_prefix)
)
val_dataloader = dict(
    batch_size=8, dataset=dict(ann_file=ann_file_val, data_prefix=data_prefix)
)
test_dataloader = dict(dataset=dict(ann_file=ann_file_test, data_prefix=data_prefix))

# At 0.01 networks with non-local blocks have been seen to collapse on UCF-101.
optim_wrapper = dict(optimizer=dict(lr=0.001))
auto_scale_lr = dict(enable=False, base_batch_size=64)  # 8 GPUs x 8 clips
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=30, val_begin=1, val_interval=3)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=0.1,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        T_max=28,
        eta_min=0,
        by_epoch=True,
        begin=2,
        end=30,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(checkpoint=dict(interval=3, max_keep_ckpts=2))
