# The control experiment: sees each frame alone, and averages.
_base_ = ["mmaction::_base_/default_runtime.py"]

# Nothing below needs it, but it makes the pinned packages work together.
custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)

model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="ResNet3dSlowOnly",
        depth=18,
        pretrained=None,
        lateral=False,
        num_stages=2,
        out_indices=(1,),
        base_channels=32,
        conv1_kernel=(1, 7, 7),
        conv1_stride_s=4,
        conv1_stride_t=1,
        with_pool1=False,
        spatial_strides=(2, 2),
        temporal_strides=(1, 1),
        dilations=(1, 1),
        # No temporal kernels: whatever compares two frames is the plugin.
        inflate=(0, 0),
        norm_eval=False,
    ),
    cls_head=dict(
        type="I3DHead",
        in_channels=64,
        num_classes=2,
        spatial_type="avg",
        dropout_ratio=0,
        topk=(1,),
        average_clips="prob",
    ),
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[114.0, 114.0, 114.0],
        std=[57.0, 57.0, 57.0],
        format_shape="NCTHW",
    ),
)

data_root = "data/bookends"
file_client_args = dict(io_backend="disk")
pipeline = [
    dict(type="DecordInit", num_threads=1, **file_client_args),
    dict(
        type="SampleFrames", clip_len=8, frame_interval=2, num_clips=1, test_mode=True
    ),
    dict(type="DecordDecode"),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
train_dataloader = dict(
    batch_size=16,
    # Two processes on two cores leave no core for workers.
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="VideoDataset",
        ann_file=f"{data_root}/train.txt",
        data_prefix=dict(video=data_root),
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VideoDataset",
        ann_file=f"{data_root}/val.txt",
        data_prefix=dict(video=data_root),
        pipeline=pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="AccMetric", metric_options=dict(top_k_accuracy=dict(topk=(1,)))
)
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=5, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=4e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        # For the configs with a plugin; they match nothing in this one. A plugin starts
        # as the identity, and learns sooner with larger steps. What weighs context
        # against features is not to be pulled to zero.
        custom_keys={
            "poly_nl": dict(lr_mult=3.0),
            "poly_nl.alpha": dict(lr_mult=3.0, decay_mult=0.0),
            "poly_nl.beta": dict(lr_mult=3.0, decay_mult=0.0),
            "non_local_block": dict(lr_mult=3.0),
            "spectral_nl": dict(lr_mult=3.0),
            "spectral_nl.alpha": dict(lr_mult=3.0, decay_mult=0.0),
            "non_local_stage": dict(lr_mult=3.0),
            "non_local_stage.alpha": dict(lr_mult=3.0, decay_mult=0.0),
            "pyramid_nl": dict(lr_mult=3.0),
            "double_attention": dict(lr_mult=3.0),
            "efficient_attention": dict(lr_mult=3.0),
            "global_context": dict(lr_mult=3.0),
            "compact_generalized_nl": dict(lr_mult=3.0),
            "criss_cross": dict(lr_mult=3.0),
            "criss_cross.gamma": dict(lr_mult=3.0, decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=40, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=30, by_epoch=False),
    dict(
        type="CosineAnnealingLR",
        T_max=5,
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=32)
