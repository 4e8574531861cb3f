# The control experiment: sees each frame alone, and averages. Person 1 is tested; see
# the README of this folder for the other folds.
_base_ = ["mmaction::_base_/default_runtime.py"]

# Registers the transforms, and makes the pinned packages work together.
custom_imports = dict(imports=["polynl_mm"], allow_failed_imports=False)

model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="ResNet3dSlowOnly",
        depth=18,
        pretrained=None,
        lateral=False,
        # One block a stage: six layers for 16 x 16 pixels.
        num_stages=2,
        stage_blocks=(1, 1),
        out_indices=(1,),
        base_channels=32,
        conv1_kernel=(1, 3, 3),
        conv1_stride_s=2,
        conv1_stride_t=1,
        with_pool1=False,
        spatial_strides=(1, 2),
        temporal_strides=(1, 1),
        dilations=(1, 1),
        # No temporal kernels: whatever compares two frames is the plugin.
        inflate=(0, 0),
        norm_eval=False,
        # Nothing is pretrained: every block works from the start.
        zero_init_residual=False,
    ),
    cls_head=dict(
        type="I3DHead",
        in_channels=64,
        num_classes=5,
        spatial_type="avg",
        dropout_ratio=0.5,
        label_smooth_eps=0.1,
        topk=(1,),
        average_clips="prob",
    ),
    # 128 is the empty room, 12 grey values are a degree.
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[128.0, 128.0, 128.0],
        std=[24.0, 24.0, 24.0],
        format_shape="NCTHW",
    ),
)

data_root = "data/nagoya_fir"
decode = [
    dict(type="RawFrameDecode", io_backend="disk", decoding_backend="cv2"),
]
pack = [
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
# Seen from the ceiling: no direction is up.
train_pipeline = [
    dict(type="UniformSample", clip_len=8),
    *decode,
    dict(type="RandomQuarterTurn"),
    dict(type="RandomShift", pixels=2),
    *pack,
]
test_pipeline = [
    dict(type="UniformSample", clip_len=8, test_mode=True),
    *decode,
    dict(type="EightSymmetries"),
    *pack,
]
train_dataloader = dict(
    batch_size=32,
    # Decoding 16 x 16 pixels takes less than handing them over.
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="RawframeDataset",
        ann_file=f"{data_root}/person1_train.txt",
        data_prefix=dict(img=f"{data_root}/frames"),
        filename_tmpl="img_{:05}.png",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RawframeDataset",
        ann_file=f"{data_root}/person1_test.txt",
        data_prefix=dict(img=f"{data_root}/frames"),
        filename_tmpl="img_{:05}.png",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="AccMetric", metric_options=dict(top_k_accuracy=dict(topk=(1,)))
)
test_evaluator = val_evaluator

# Validated once, after the last epoch: nothing is chosen on the test person.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=8, val_interval=8)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        # For the configs with a plugin; they match nothing in this one. What weighs
        # context against features is not to be pulled to zero.
        custom_keys={
            "poly_nl.alpha": dict(decay_mult=0.0),
            "poly_nl.beta": dict(decay_mult=0.0),
            "spectral_nl.alpha": dict(decay_mult=0.0),
            "non_local_stage.alpha": dict(decay_mult=0.0),
            "criss_cross.gamma": dict(decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=40, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(
        type="CosineAnnealingLR",
        T_max=8,
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1))
auto_scale_lr = dict(enable=False, base_batch_size=32)
