"""Building the recognizer of a config outside a Runner, and giving it weights."""

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
from torch import nn

from polynl_mm.recognizers.model_match import check_complete
from polynl_mm.recognizers.state_dicts import find_state_dict
from polynl_mm.stack.safe_checkpoints import load_safely
from polynl_mm.user_errors import UserError


def build_recognizer(cfg: Config, config_name: str) -> nn.Module:
    """Build the model of a config, on the CPU, with no pretrained weights loaded.

    Args:
        cfg (Config): A config with ``model``.
        config_name (str): The config, for the sentence.

    Returns:
        nn.Module: The model, in evaluation mode.

    Raises:
        UserError: If the config has no model.
    """
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    if not cfg.get("model"):
        raise UserError(f"{config_name} has no model.")
    if cfg.get("custom_imports"):
        import_modules_from_strings(**cfg.custom_imports)
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.get("default_scope") or "mmaction")
    model_cfg = cfg.model.copy()
    if cfg.get("data_preprocessor"):
        model_cfg.setdefault("data_preprocessor", cfg.data_preprocessor)
    return MODELS.build(model_cfg).eval()


def load_weights(model: nn.Module, checkpoint: str, config_name: str) -> None:
    """Load a checkpoint of exactly this model.

    Args:
        model (nn.Module): The model; changed in place.
        checkpoint (str): The checkpoint's path.
        config_name (str): The config, for the sentence.

    Raises:
        CheckpointError: If the file cannot be read, or is of another model.
    """
    loaded = load_safely(checkpoint, "cpu")
    check_complete(model, loaded, config_name, checkpoint)
    weights = find_state_dict(loaded, checkpoint, ("state_dict",))
    model.load_state_dict(weights, strict=False)
