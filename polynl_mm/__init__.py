"""Global space-time context for MMAction2's video backbones, at linear cost.

Importing this package registers every plugin, ``WithPlugins``, and what lets a run
survive bad videos in MMEngine's root registries. MMAction2 itself is only imported when
one of its backbones is built. Our tools alone register later, once their command line
is read: ``--help`` and a misspelt option do not wait for torch.
"""

# ruff: noqa: F403, F405  (for editors; see _register)

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from polynl_mm.stack import check_requirements
from polynl_mm.tool_start import is_tool

# First of all: what is registered imports the packages that are checked here.
check_requirements()

if TYPE_CHECKING:
    from polynl_mm.registered import *

__all__ = [
    "BadVideosHook",
    "CompactGeneralizedNL2d",
    "CompactGeneralizedNL3d",
    "CrissCross2d",
    "CrissCross3d",
    "DoubleAttention2d",
    "DoubleAttention3d",
    "EfficientAttention2d",
    "EfficientAttention3d",
    "GlobalContext2d",
    "GlobalContext3d",
    "NonLocalBlock2d",
    "NonLocalBlock3d",
    "NonLocalStage2d",
    "NonLocalStage3d",
    "Plugin",
    "PolyNL2d",
    "PolyNL3d",
    "PyramidNL2d",
    "PyramidNL3d",
    "SpectralNL2d",
    "SpectralNL3d",
    "SurvivingDecode",
    "WithPlugins",
    "accelerate_non_local",
    "insert_plugins",
    "register",
]


def register() -> None:
    """Register everything, as the import does outside our tools; safe to call again.

    Raises:
        ImportError: One sentence, if a package of the stack cannot be imported.
    """
    try:
        _register()
    except ImportError as error:
        raise ImportError(" ".join(str(error).split()), name=error.name) from error


def _register() -> None:
    from polynl_mm import registered

    for name in __all__:
        globals().setdefault(name, vars(registered).get(name))


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    register()
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not is_tool():
    _register()
