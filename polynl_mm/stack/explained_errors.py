"""What torch and MMEngine raise for a mistake in a config, in one sentence.

Mends: their messages name neither the key of the config nor what it may hold (a missing
optimizer is "None is not a callable object", a head of the wrong width two shapes of
matrices), and are tracebacks of their own code.
"""

import inspect
import re
import traceback

from polynl_mm.user_errors import (
    EXPLANATIONS,
    PACKAGE_FOLDER,
    did_you_mean,
    first_line,
    frames_of,
)

NOT_REGISTERED = re.compile(r"(\S+) is not in the (.+?) registry\.")
OPTIMIZER_FILES = ("torch/optim/optimizer.py", "scheduler/param_scheduler.py")
BAD_PRODUCT = re.compile(
    r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)"
)
BAD_ARGUMENT = re.compile(
    r"(got an unexpected keyword argument|missing \d+ required|multiple values)"
)


def explain_errors_of_stack() -> None:
    """Have :func:`polynl_mm.user_errors.explain` know these errors; safe to repeat."""
    for explanation in (
        _explain_registry,
        _explain_argument,
        _explain_optimizer,
        _explain_built,
        _explain_resumed_optimizer,
        _explain_head,
        _explain_empty_epoch,
        _explain_weights,
        _explain_missing_package,
    ):
        if explanation not in EXPLANATIONS:
            EXPLANATIONS.append(explanation)


def _explain_registry(error: BaseException) -> str | None:
    match = isinstance(error, KeyError) and NOT_REGISTERED.search(str(error.args[0]))
    if not match:
        return None
    name, registry_name = match.groups()
    known: set[str] = set()
    for frame in frames_of(error):
        registry = frame.f_locals.get("registry")
        if hasattr(registry, "module_dict"):
            known |= _registered_names(registry)
    hint = did_you_mean(name, known) or (
        "; check the spelling, and that custom_imports names the module defining it"
    )
    return f"The config asks for type {name!r}, which no {registry_name} has{hint}"


def _registered_names(registry) -> set[str]:
    names = set(registry.module_dict)
    root = registry
    while root.parent is not None:
        root = root.parent
        names |= set(root.module_dict)
    return names


def _explain_argument(error: BaseException) -> str | None:
    built = _being_constructed(error)
    if built is None:
        return None
    name = getattr(built, "__name__", str(built))
    if isinstance(error, AssertionError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"{name} does not accept its arguments in the config: "
            f"{str(error) or last.line} (POLYNL_DEBUG=1 shows where)"
        )
    if not isinstance(error, TypeError) or not BAD_ARGUMENT.search(str(error)):
        return None
    given = re.search(r"keyword argument '(\w+)'", str(error))
    if given is None:
        return f"The config of {name} does not fit: {error}"
    allowed = [p for p in inspect.signature(built).parameters if p != "kwargs"]
    hint = did_you_mean(given[1], allowed) or f"; it takes {', '.join(allowed)}"
    return f"{name} takes no argument {given[1]!r} (given in the config){hint}"


def _being_constructed(error: BaseException) -> object | None:
    """Return the class whose constructor, called from a config, raised the error."""
    frames = frames_of(error)
    names = [frame.f_code.co_name for frame in frames]
    if "build_from_cfg" not in names:
        return None
    last = len(names) - 1 - names[::-1].index("build_from_cfg")
    if len(names) > last + 1 and names[last + 1] != "__init__":
        return None
    return frames[last].f_locals.get("obj_cls")


def _explain_optimizer(error: BaseException) -> str | None:
    # MMEngine looks the optimizer's class up, gets None, and inspects that.
    if not isinstance(error, TypeError) or "None is not a callable" not in str(error):
        return None
    for frame in frames_of(error):
        cfg = frame.f_locals.get("optimizer_cfg")
        if isinstance(cfg, dict) and "type" in cfg:
            from mmengine.registry import OPTIMIZERS

            hint = did_you_mean(str(cfg["type"]), OPTIMIZERS.module_dict)
            return f"The config asks for the unknown optimizer {cfg['type']!r}{hint}"
    return None


def _explain_built(error: BaseException) -> str | None:
    """Explain what a class of the config, or its data loader, says of its arguments."""
    if not isinstance(error, (ValueError, TypeError, KeyError, AttributeError)):
        return None
    frames = frames_of(error)
    if not frames or frames[-1].f_code.co_filename.startswith(PACKAGE_FOLDER):
        return None
    last = frames[-1].f_code
    if last.co_filename.endswith("torch/utils/data/dataloader.py"):
        return f"A data loader of the config cannot be built: {first_line(error)}"
    built = _being_constructed(error)
    if built is None:
        return None
    name = getattr(built, "__name__", str(built))
    reason = f"{type(error).__name__}: {first_line(error)}"
    return (
        f"{name} cannot be built with its arguments in the config: {reason} "
        "(POLYNL_DEBUG=1 shows where)"
    )


def _explain_resumed_optimizer(error: BaseException) -> str | None:
    """Explain what torch says of an optimizer's state that is not of this model."""
    frames = frames_of(error)
    if not isinstance(error, (ValueError, KeyError, TypeError)) or not any(
        frame.f_code.co_name == "load_state_dict"
        and frame.f_code.co_filename.endswith(OPTIMIZER_FILES)
        for frame in frames
    ):
        return None
    return (
        "The checkpoint cannot be resumed: its optimizer or schedule is not of this "
        f"config ({first_line(error)}); to start from its weights alone, use "
        "--cfg-options load_from=CHECKPOINT without --resume."
    )


def _explain_head(error: BaseException) -> str | None:
    """Explain a classifier that is not as wide as the features it gets."""
    found = isinstance(error, RuntimeError) and BAD_PRODUCT.search(str(error))
    if not found:
        return None
    for frame in frames_of(error):
        head = frame.f_locals.get("self")
        if type(head).__module__.startswith("mmaction.models.heads"):
            return (
                f"{type(head).__name__} was built with in_channels={found[2]}, but the "
                f"backbone gives {found[1]} channels; set model.cls_head.in_channels="
                f"{found[1]}."
            )
    return None


def _explain_empty_epoch(error: BaseException) -> str | None:
    """Explain what a schedule says of an epoch without a step."""
    if isinstance(error, AssertionError) and "epoch_length must be" in str(error):
        return (
            "An epoch has no step: train_dataloader.batch_size is larger than the data "
            "set, and drop_last leaves the rest out; take a smaller batch_size, or "
            "drop_last=False."
        )
    return None


def _explain_weights(error: BaseException) -> str | None:
    """Explain a network that loads pretrained weights even where it is given none."""
    if not isinstance(error, (TypeError, AttributeError)):
        return None
    for frame in frames_of(error):
        network = frame.f_locals.get("self")
        if (
            frame.f_code.co_name == "init_weights"
            and getattr(network, "pretrained", "") is None
        ):
            return (
                f"{type(network).__name__} loads pretrained weights in any case, and "
                "its config has pretrained=None; give it an address or a file, such as "
                "model.backbone.pretrained=torchvision://resnet50."
            )
    return None


def _explain_missing_package(error: BaseException) -> str | None:
    if isinstance(error, ImportError) and "pip install" in str(error):
        return f"What the config asks for needs a package: {first_line(error)}"
    return None
