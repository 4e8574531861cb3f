"""The MMAction2 model that computes what a model of PySlowFast computes.

Widths, depths, kernels and the places of non-local blocks are read off the weights;
what weights do not tell comes from PySlowFast's config, or is said to be assumed.
"""

import re

from polynl_mm.convert.pyslowfast import NON_LOCAL, Source
from polynl_mm.user_errors import UserError, first_line

DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101}
MODES = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
# After res2, these pool over time by 2.
POOLED_ARCHS = {"i3d", "c2d"}
UNPOOLED_ARCHS = {
    "i3d_nopool",
    "c2d_nopool",
    "slow_i3d",
    "slow_c2d",
    "2d",
    "slow",
    "slowonly",
    "slowfast",
}
MODEL_NAMES = ("ResNet", "ResNet_nopool", "SlowFast")
# What the head makes of its scores: what averages them over views, and its note.
HEAD_ACTS = {
    "softmax": ("prob", None),
    "none": ("score", None),
    "sigmoid": (
        "score",
        "MODEL.HEAD_ACT sigmoid is left to you: the head gives the scores before it",
    ),
}


def describe_model(source: Source) -> tuple[dict, list[str]]:
    """Return the MMAction2 model that computes what a PySlowFast model computes.

    Args:
        source (Source): The model.

    Returns:
        tuple[dict, list[str]]: A ``model`` config, and sentences on what the checkpoint
        does not tell and was assumed.

    Raises:
        CheckpointError: If the weights are of no bottleneck ResNet of PySlowFast.
        UserError: If the model has something that MMAction2's backbones have not.
    """
    _check_settings(source)
    try:
        model, assumed = _describe(source)
    except (
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        ZeroDivisionError,
    ) as error:
        raise UserError(
            "The weights or settings have not the form of PySlowFast's: "
            f"{first_line(error)}."
        ) from error
    if not source.settings:
        told = ", ".join(f"{key} {value}" for key, value in source.defaulted.items())
        assumed.append(f"without PySlowFast's config these are assumed: {told}")
    return model, assumed


def _check_settings(source: Source) -> None:
    """Refuse what would be another network than these weights are of."""
    if source.setting("DETECTION.ENABLE"):
        raise UserError(
            "DETECTION.ENABLE is set: the model finds people in boxes, which a "
            "recognizer of clips does not; convert a model trained without it."
        )
    name = source.known("MODEL.MODEL_NAME", "ResNet")
    if name not in MODEL_NAMES:
        raise UserError(
            f"MODEL.MODEL_NAME is one of {', '.join(MODEL_NAMES)}, not {name!r}."
        )
    activation = source.setting("MODEL.HEAD_ACT")
    if activation not in HEAD_ACTS:
        raise UserError(
            f"MODEL.HEAD_ACT is one of {', '.join(HEAD_ACTS)}, not {activation!r}."
        )


def _describe(source: Source) -> tuple[dict, list[str]]:
    pathways = [_describe_pathway(source, index) for index in range(source.pathways)]
    assumed: list[str] = []
    if source.pathways == 1:
        backbone = dict(type="ResNet3d", pretrained2d=False, **pathways[0])
        backbone["with_pool2"] = _is_pooled_over_time(source, pathways[0], assumed)
    else:
        alpha = source.setting("SLOWFAST.ALPHA")
        if source.known("SLOWFAST.ALPHA") is None:
            assumed.append(f"SLOWFAST.ALPHA is assumed to be {alpha}")
        fuse = source.shape("s1_fuse.conv_f2s.weight")
        lateral = dict(lateral=True, lateral_norm=True, lateral_infl=fuse[0] // fuse[1])
        backbone = dict(
            type="ResNet3dSlowFast",
            pretrained=None,
            resample_rate=alpha,
            speed_ratio=alpha,
            channel_ratio=pathways[0]["base_channels"] // pathways[1]["base_channels"],
            slow_pathway=dict(
                type="resnet3d", fusion_kernel=fuse[2], **lateral, **pathways[0]
            ),
            fast_pathway=dict(type="resnet3d", lateral=False, **pathways[1]),
        )
    plugins = _describe_plugins(source, assumed)
    if plugins:
        backbone = dict(backbone, type="WithPlugins", of=backbone["type"])
        backbone["plugins"] = plugins
    model = dict(type="Recognizer3D", backbone=backbone)
    average, note = HEAD_ACTS[source.setting("MODEL.HEAD_ACT")]
    if note:
        assumed.append(note)
    if "head.projection.weight" in source.weights:
        classes, channels = source.shape("head.projection.weight")[:2]
        model["cls_head"] = dict(
            type="I3DHead" if source.pathways == 1 else "SlowFastHead",
            in_channels=channels,
            num_classes=classes,
            spatial_type="avg",
            dropout_ratio=source.setting("MODEL.DROPOUT_RATE"),
            average_clips=average,
        )
    model["data_preprocessor"] = dict(
        type="ActionDataPreprocessor",
        mean=[255 * value for value in source.setting("DATA.MEAN")],
        std=[255 * value for value in source.setting("DATA.STD")],
        to_rgb=bool(source.setting("DATA.REVERSE_INPUT_CHANNEL")),
        format_shape="NCTHW",
    )
    return model, assumed


def _describe_pathway(source: Source, index: int) -> dict:
    blocks = tuple(_count_blocks(source, stage, index) for stage in range(2, 6))
    inflate = []
    for stage, count in zip(range(2, 6), blocks, strict=True):
        kernels = []
        for block in range(count):
            start = f"s{stage}.pathway{index}_res{block}.branch2."
            source.shape(f"{start}c.weight")  # a bottleneck's
            kernels.append(source.shape(f"{start}a.weight")[2])
            spatial = source.shape(f"{start}b.weight")
            if spatial[0] != spatial[1]:
                raise UserError(
                    f"{start}b is a grouped convolution (ResNeXt), which MMAction2's "
                    "ResNet3d has not."
                )
        if not set(kernels) <= {1, 3}:
            raise UserError(
                f"Stage s{stage} has temporal kernels {kernels}, and MMAction2's "
                "ResNet3d has 1 and 3 only."
            )
        inflate.append(tuple(int(kernel == 3) for kernel in kernels))
    stem = next(
        (k for k in source.weights if re.match(rf"s1\.\w+{index}_stem\.conv\.w", k)),
        f"s1.pathway{index}_stem.conv.weight",
    )
    shape = source.shape(stem)
    strides = source.setting("RESNET.SPATIAL_STRIDES")
    dilations = source.setting("RESNET.SPATIAL_DILATIONS")
    pathway = dict(
        depth=DEPTHS.get(blocks, 50),
        pretrained=None,
        base_channels=shape[0],
        conv1_kernel=shape[2:],
        conv1_stride_t=1,
        pool1_stride_t=1,
        inflate=tuple(inflate),
        spatial_strides=tuple(stride[index] for stride in strides),
        dilations=tuple(dilation[index] for dilation in dilations),
        style="caffe" if source.setting("RESNET.STRIDE_1X1") else "pytorch",
    )
    if blocks not in DEPTHS:
        pathway["stage_blocks"] = blocks
    return pathway


def _count_blocks(source: Source, stage: int, pathway: int) -> int:
    found = re.compile(rf"s{stage}\.pathway{pathway}_res(\d+)\.")
    return 1 + max(
        (int(match[1]) for key in source.weights if (match := found.match(key))),
        default=-1,
    )


def _describe_plugins(source: Source, assumed: list[str]) -> list[dict]:
    places: dict[int, list[list[int]]] = {}
    for key in source.weights:
        match = NON_LOCAL.fullmatch(key)
        if match and match[4] == "conv_g" and match[5] == "weight":
            stages = places.setdefault(int(match[2]), [[], [], [], []])
            stages[int(match[1]) - 2].append(int(match[3]))
    if not places:
        return []
    if source.known("NONLOCAL.INSTANTIATION") is None:
        assumed.append("NONLOCAL.INSTANTIATION is assumed to be dot_product")
    if source.known("NONLOCAL.POOL") is None:
        assumed.append("NONLOCAL.POOL is assumed to be [1, 2, 2]")
    mode = MODES.get(source.setting("NONLOCAL.INSTANTIATION"))
    if mode is None:
        raise UserError(
            f"NONLOCAL.INSTANTIATION is one of {', '.join(MODES)}, not "
            f"{source.setting('NONLOCAL.INSTANTIATION')!r}."
        )
    entries = []
    for pathway, stages in sorted(places.items()):
        seen = {i: _what_is_seen(source, i, pathway) for i, s in enumerate(stages) if s}
        for pools, groups in sorted(set(seen.values())):
            blocks = tuple(
                tuple(sorted(s)) if seen.get(i) == (pools, groups) else ()
                for i, s in enumerate(stages)
            )
            cfg = dict(type="NonLocalBlock3d", mode=mode, use_scale=True)
            if _has_norm(source, blocks, pathway):
                cfg["norm_cfg"] = dict(type="BN3d")
            if max(pools) > 1:
                cfg.update(sub_sample=True, pool_first=True)
            if pools not in ((1, 1, 1), (1, 2, 2)):
                cfg["pool_size"] = pools
            if groups > 1:
                cfg["temporal_groups"] = groups
            entry = dict(cfg=cfg, blocks=blocks)
            if source.pathways == 2:
                entry["pathway"] = ("slow", "fast")[pathway]
            entries.append(entry)
    return entries


def _has_norm(source: Source, blocks: tuple, pathway: int) -> bool:
    stage = next(i for i, indices in enumerate(blocks) if indices)
    start = f"s{stage + 2}.pathway{pathway}_nonlocal{blocks[stage][0]}."
    return any(f"{start}{name}.weight" in source.weights for name in ("bn", "norm"))


def _is_pooled_over_time(source: Source, pathway: dict, assumed: list[str]) -> bool:
    if source.known("MODEL.MODEL_NAME") == "ResNet_nopool":
        return False  # whatever the architecture's table says
    arch = source.known("MODEL.ARCH")
    if arch is None:
        pooled = pathway["conv1_kernel"][0] > 1
        assumed.append(f"MODEL.ARCH is assumed to be {'i3d' if pooled else 'slow'}")
        return pooled
    if arch not in POOLED_ARCHS | UNPOOLED_ARCHS:
        raise UserError(f"MODEL.ARCH {arch!r} of PySlowFast is no ResNet known here.")
    return arch in POOLED_ARCHS


def _what_is_seen(
    source: Source, stage: int, pathway: int
) -> tuple[tuple[int, ...], int]:
    """Return how a stage's blocks pool (T, H, W), and their groups of frames."""
    groups = source.setting("NONLOCAL.GROUP")[stage]
    pools = source.setting("NONLOCAL.POOL")[stage]
    if pools and isinstance(pools[0], (list, tuple)):
        pools = pools[min(pathway, len(pools) - 1)]
    return tuple(pools or (1, 1, 1)), groups[min(pathway, len(groups) - 1)]
