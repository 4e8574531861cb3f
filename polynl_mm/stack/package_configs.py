"""Configs of installed packages, ``polynl_mm::...`` among them, as a ``_base_``.

Mends: MMEngine 0.10.7 knows a fixed list of packages, and for each inherited
``mmaction::`` file imports pkg_resources, which setuptools no longer has from version
81 on, and reads every metafile of the package, seconds for a file whose place its name
says. What is not found at that place goes MMEngine's way.
"""

from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.config import config as config_module
from mmengine.config import utils as config_utils

PACKAGE = "polynl_mm"


def configs_of(package: str) -> Path | None:
    """Return the folder of a package's configs.

    Args:
        package (str): An importable name, such as ``mmaction``.

    Returns:
        Path | None: None where there is no such package, or it carries none.
    """
    if not _is_installed(package):
        return None
    folder = Path(_folder_of(package)) / ".mim" / "configs"
    return folder if folder.is_dir() else None


def find_configs_by_name() -> None:
    """Have MMEngine look where a config's name says; safe to call again."""
    config_utils.MODULE2PACKAGE.setdefault(PACKAGE, PACKAGE)
    original = Config._get_cfg_path
    if original.__name__ == "get_cfg_path":
        return

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, found, name = cfg_path.partition("::")
        folder = configs_of(package) if found else None
        if folder is None or not (folder / name).is_file():
            return original(cfg_path, filename)
        # Ours are in no scope of their own: what they register is in the root.
        return str(folder / name), None if package == PACKAGE else package

    Config._get_cfg_path = staticmethod(get_cfg_path)
    # For configs that import their bases, too.
    config_module.is_installed = _is_installed
    config_module.get_installed_path = _folder_of


def _is_installed(package: str) -> bool:
    spec = find_spec(_module_of(package))
    return spec is not None and bool(spec.submodule_search_locations)


def _folder_of(package: str) -> str:
    return find_spec(_module_of(package)).submodule_search_locations[0]


def _module_of(package: str) -> str:
    """Return the module of a distribution: mmaction for mmaction2."""
    names = {name: module for module, name in config_utils.MODULE2PACKAGE.items()}
    return names.get(package, package)
