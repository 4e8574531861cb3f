"""Reading configs, with the command line's changes, and helpful errors."""

import ast
import inspect
import os
import traceback
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

import polynl_mm
from polynl_mm.installation import CARRIED, CONFIGS
from polynl_mm.recognizers.config_variables import check_child_variables, set_variables
from polynl_mm.recognizers.model_match import CheckpointMatchHook
from polynl_mm.stack.bfloat16 import accept_bfloat16_scores
from polynl_mm.stack.byte_order_marks import ignore_byte_order_marks
from polynl_mm.stack.package_configs import configs_of
from polynl_mm.stack.quiet_stack import quieten_stack
from polynl_mm.stack.safe_checkpoints import check_exists
from polynl_mm.stack.visualization import replace_visualization_hook
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError, did_you_mean, first_line, nearest

CONFIG_SUFFIXES = (".py", ".yml", ".yaml", ".json")
# Read by the Runner from its config, beside its own arguments.
RUNNER_KEYS = {
    "activation_checkpointing",
    "clip_parallel",
    "compile",
    "custom_imports",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "runner_type",
    "strategy",
    "sync_bn",
}
# MMEngine's, and what replaces it.
FSDP_STRATEGIES = ("FSDPStrategy", "mmengine.FSDPStrategy", "ShardedStrategy")


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config file and merge the command line's options into it.

    Args:
        path (str): A file, relative to the current folder or else to what the package
            carries (``configs/...``); or ``polynl_mm::slowonly/...`` and
            ``mmaction::recognition/...``, a config of an installed package.
        options (dict | None): ``{"a.b.c": value}``, as ``--cfg-options`` gives.

    Returns:
        Config: The config, with ``options`` merged.

    Raises:
        UserError: If the file does not exist or cannot be read, or an option does
            not fit; the sentence names the nearest valid choices.
    """
    quieten_stack()
    polynl_mm.register()  # in a tool that has not done so yet
    file = find_config(path)
    if file.suffix not in CONFIG_SUFFIXES:
        raise UserError(
            f"{path} is no config file: its name must end in {CONFIG_SUFFIXES[0]} (or "
            f"{', '.join(CONFIG_SUFFIXES[1:])})."
        )
    try:
        _check_inherited(file, ())
        cfg = Config.fromfile(str(file))
    except FileNotFoundError as error:
        raise UserError(f"{path}, or one it inherits, is missing: {error}") from error
    except RecursionError as error:
        raise UserError(
            f"{path} is nested too deep, or inherits itself; change a _base_."
        ) from error
    except ImportError as error:
        raise UserError(
            f"{path} cannot import what it names: {_reason_of_import(error)}"
        ) from error
    except SyntaxError as error:
        if error.filename != "<unknown>":
            raise  # explained as it is
        line = (error.text or "").strip()
        raise UserError(
            f"{path}, or one it inherits, is not valid Python: line {error.lineno}: "
            f"{error.msg}: {line}"
        ) from error
    except Exception as error:
        if "in child config cannot inherit from base" in str(error):
            raise UserError(f"{path}: {' '.join(str(error).split())}") from error
        place = _place_in_config(error)
        if place is None:
            raise
        raise UserError(
            f"{place}: {type(error).__name__}: {first_line(error)}"
        ) from error
    check_child_variables(file, cfg, keys_of_runs())
    if options:
        _merge_options(cfg, options)
    return cfg


def keys_of_runs() -> set[str]:
    """Return the top-level keys of a config that a Runner reads."""
    return set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | (
        RUNNER_KEYS
    )


def find_config(path: str) -> Path:
    """Return the file that a config argument means.

    Args:
        path (str): As for :func:`load_config`.

    Returns:
        Path: An existing file.

    Raises:
        UserError: If there is none; names the nearest existing configs.
    """
    if "::" in path:
        return _packaged_config(path)
    for candidate in (Path(path).expanduser(), CARRIED / path):
        if candidate.is_file():
            return candidate
    shown = _nearest_files(path, [Path.cwd() / "configs", CONFIGS])
    raise UserError(f"The config {path} does not exist{shown}")


def set_work_dir(cfg: Config, given: str | None, config: str) -> None:
    """Set where a run writes: the argument, else the config's, else by its name.

    Args:
        cfg (Config): Changed in place.
        given (str | None): ``--work-dir``.
        config (str): The config argument.
    """
    if given is not None:
        cfg.work_dir = given
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs", Path(config.split("::")[-1]).stem))


def expect_checkpoint(cfg: Config, config: str, file: str, complete: bool) -> None:
    """Set the checkpoint that a run loads, and have it checked against the model.

    Args:
        cfg (Config): Changed in place.
        config (str): The config argument, for the sentence if they do not fit.
        file (str): The checkpoint: a path or an address.
        complete (bool): Whether every weight must match, or at least one.

    Raises:
        CheckpointError: If a local file does not exist.
    """
    check_exists(file)
    cfg.load_from = file
    hook = {
        "type": CheckpointMatchHook.__name__,
        "config_name": config,
        "complete": complete,
        "file_name": file,
    }
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), hook]


def add_hook(cfg: Config, kind: str) -> None:
    """Add one of polynl_mm's hooks to a config, once.

    Args:
        cfg (Config): The config of a run; changed in place.
        kind (str): The hook's registry type.
    """
    hooks = list(cfg.get("custom_hooks") or [])
    if not any(hook.get("type") == kind for hook in hooks):
        hooks.append({"type": kind, "_scope_": "mmengine"})
    cfg.custom_hooks = hooks


def is_sharded(cfg: Config) -> bool:
    """Return whether a config trains with FSDP.

    Args:
        cfg (Config): The config of a run.

    Returns:
        bool: Whether its ``strategy`` is FSDPStrategy.
    """
    kind = (cfg.get("strategy") or {}).get("type")
    return getattr(kind, "__name__", kind) in FSDP_STRATEGIES


def unshard(cfg: Config) -> None:
    """Let one process evaluate a config that trains with FSDP; in place.

    Args:
        cfg (Config): The config of a test.
    """
    if is_sharded(cfg) and cfg.get("launcher", "none") == "none":
        print_log(
            "FSDP is not used: one process evaluates the whole model.", logger="current"
        )
        for key in ("runner_type", "strategy"):
            cfg.pop(key, None)


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config asks for.

    Args:
        cfg (Config): The whole config of a run.

    Returns:
        Runner: MMEngine's, or the one of ``runner_type``.

    Raises:
        UserError: If the config asks for FSDP in a single process.
    """
    accept_bfloat16_scores()
    ignore_byte_order_marks()
    replace_visualization_hook()
    if "runner_type" not in cfg:
        return Runner.from_cfg(cfg)
    from mmaction.registry import RUNNERS

    if is_sharded(cfg):
        if cfg.get("launcher", "none") == "none":
            raise UserError(
                "FSDPStrategy shares a model out to several processes, but this is a "
                "single one; train with tools/dist_train.sh CONFIG GPUS, or take the "
                "config without FSDP."
            )
        cfg.strategy.type = "ShardedStrategy"
        cfg.strategy["_scope_"] = "mmengine"
        if cfg.get("sync_bn"):
            cfg.strategy.setdefault("sync_bn", cfg.sync_bn)
    if cfg.get("env_cfg") is None:
        cfg.env_cfg = {}  # FlexibleRunner unpacks it
    return RUNNERS.build(cfg)


def _check_inherited(file: Path, heirs: tuple[Path, ...]) -> None:
    """Refuse a config that is no text, or that inherits itself, in one sentence.

    Args:
        file (Path): The config.
        heirs (tuple[Path, ...]): The configs that inherit it, from the outermost on.

    Raises:
        UserError: If it is so.
    """
    # Not through links: what a link inherits lies beside it.
    file = Path(os.path.abspath(file.expanduser()))
    if file in heirs:
        circle = " inherits ".join(map(str, (*heirs[heirs.index(file) :], file)))
        raise UserError(f"A config cannot inherit itself: {circle}; change a _base_.")
    if not file.is_file():
        return  # MMEngine says so
    read_text(file, "config")
    for base in _bases_of(file):
        _check_inherited(base, (*heirs, file))


def _bases_of(file: Path) -> list[Path]:
    """Return what a Python config inherits, by ``_base_`` or by ``read_base()``."""
    if file.suffix != ".py":
        return []  # has placeholders, which MMEngine fills in before it parses it
    if Config._is_lazy_import(str(file)):
        code = ast.parse(file.read_text(encoding="utf-8"))
        return [
            file.parents[node.level - 1] / f"{node.module.replace('.', '/')}.py"
            for block in code.body
            if isinstance(block, ast.With)
            for node in block.body
            if isinstance(node, ast.ImportFrom) and node.module and node.level
        ]
    bases = Config._get_base_files(str(file))
    return [Path(Config._get_cfg_path(base, str(file))[0]) for base in bases]


def _reason_of_import(error: ImportError) -> str:
    if "the current sys.path is" not in str(error):
        return str(error)
    # MMEngine tells the whole sys.path; what could not be imported is further down.
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return (
        f"custom_imports failed ({first_line(error)}); check the spelling, and that "
        "the module is installed or in a folder of PYTHONPATH."
    )


def _place_in_config(error: Exception) -> str | None:
    """Return the file and line of the config that raised an error, if one did."""
    frames = traceback.extract_tb(error.__traceback__)
    if len(frames) < 2 or not frames[-2].filename.endswith("mmengine/config/config.py"):
        return None
    if frames[-1].name != "<module>":
        return None
    return f"{frames[-1].filename}, line {frames[-1].lineno}"


def _packaged_config(path: str) -> Path:
    package, _, name = path.partition("::")
    root = configs_of(package)
    if root is None:
        raise UserError(
            f"{path} names the package {package}, which is not installed or carries "
            "no configs."
        )
    file = root / (name if name.endswith(".py") else f"{name}.py")
    if file.is_file():
        return file
    shown = _nearest_files(name, [root], prefix=f"{package}::", relative_to=root)
    raise UserError(f"The config {path} does not exist{shown}")


def _nearest_files(
    path: str, folders: list[Path], prefix: str = "", relative_to: Path | None = None
) -> str:
    known = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            base = relative_to or folder.parent
            known.setdefault(file.stem, f"{prefix}{file.relative_to(base).as_posix()}")
    found = nearest(Path(path).stem, known)
    if not found:
        return "; give the path of a config file, such as one under configs/."
    return "; did you mean " + " or ".join(known[name] for name in found) + "?"


def _merge_options(cfg: Config, options: dict) -> None:
    read = keys_of_runs()
    allowed = read | set(cfg)
    for key in options:
        first = key.split(".")[0]
        if first not in allowed:
            raise UserError(
                f"--cfg-options {key}: the config has no {first!r}"
                + (did_you_mean(first, allowed) or f"; it has {', '.join(sorted(cfg))}")
            )
    variables = {k: v for k, v in options.items() if k.split(".")[0] not in read}
    try:
        if variables:
            set_variables(cfg, variables, read)
        cfg.merge_from_dict({k: v for k, v in options.items() if k not in variables})
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        reason = error.args[0] if error.args else error
        raise UserError(
            f"--cfg-options {' '.join(options)} does not fit the config: {reason}"
        ) from error
