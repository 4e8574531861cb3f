"""What testing changes in the pipelines of a config: less memory, named samples."""

from collections.abc import Iterator

from polynl_mm.datasets.decoding.decode_in_parts import decode_in_parts

# What datasets call the source of a sample.
SOURCES = ("filename", "frame_dir")
DEFAULT_META_KEYS = ("img_shape", "img_key", "video_id", "timestamp")


def bound_decoding(cfg) -> None:
    """Let the test pipelines hold few full-size frames at once; in place.

    Args:
        cfg (mmengine.Config): The config of a test.
    """
    for dataset in _test_datasets(cfg):
        dataset["pipeline"] = decode_in_parts(dataset["pipeline"])


def name_samples(cfg) -> None:
    """Let predictions say which sample they are of; in place.

    Args:
        cfg (mmengine.Config): The config of a test.
    """
    for dataset in _test_datasets(cfg):
        for step in dataset["pipeline"]:
            if str(step.get("type")).rpartition(".")[2] == "PackActionInputs":
                keys = tuple(step.get("meta_keys", DEFAULT_META_KEYS))
                step["meta_keys"] = tuple(dict.fromkeys((*keys, *SOURCES)))


def find_single_view_pipeline(cfg) -> list[dict] | None:
    """Return the pipeline that looks at a video once, if there is one.

    Configs validate on one view, and test on many.

    Args:
        cfg (mmengine.Config): A config.

    Returns:
        list[dict] | None: That of the data loader for validation, else the one by which
        the config is evaluated.
    """
    for dataset in _datasets(cfg.get("val_dataloader")):
        return dataset["pipeline"]
    return find_test_pipeline(cfg)


def find_test_pipeline(cfg) -> list[dict] | None:
    """Return the pipeline by which a config is evaluated.

    What a config calls ``test_pipeline`` was copied into its data loaders when it was
    read; what they have now is what counts.

    Args:
        cfg (mmengine.Config): A config.

    Returns:
        list[dict] | None: That of the data loader for testing, else for validation,
        else ``test_pipeline``; None if there is none.
    """
    for loader in ("test_dataloader", "val_dataloader"):
        for dataset in _datasets(cfg.get(loader)):
            return dataset["pipeline"]
    return cfg.get("test_pipeline")


def _test_datasets(cfg) -> Iterator[dict]:
    return _datasets(cfg.get("test_dataloader"))


def _datasets(loaders: dict | list | None) -> Iterator[dict]:
    """Yield every dataset config of data loaders that has a pipeline."""
    loaders = loaders or []
    todo = list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]
    while todo:
        dataset = todo.pop()
        for key in ("dataset", "datasets"):  # of dataloaders, and of wrappers
            inner = dataset.get(key) or []
            todo += list(inner) if isinstance(inner, (list, tuple)) else [inner]
        if dataset.get("pipeline"):
            yield dataset
