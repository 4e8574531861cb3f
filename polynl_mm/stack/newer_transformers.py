"""Keeps multimodal models that cannot be imported from taking all others with them.

Mends: mmaction2 1.2.0 imports its VindLU models wherever transformers 4.28 or later is
installed, for whatever else; with transformers 5, which has moved what they use,
``import mmaction.models`` fails, and with it every training. Beside transformers 5 they
are not tried, which would take seconds of every start. Where they can be imported,
nothing changes.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from importlib import metadata

from packaging.version import Version

PACKAGE = "mmaction.models.multimodal.vindlu"
MODELS = ("VindLUVQA", "VindLURetrievalMC", "VindLURetrieval")


class VindLUFinder(importlib.abc.MetaPathFinder):
    """Finds ``mmaction.models.multimodal.vindlu``, to be loaded if it can be."""

    def find_spec(self, fullname, path=None, target=None):
        """Return the package's spec, with a loader that outlives its errors."""
        if fullname != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _SurvivingLoader(spec.loader)
        return spec


class _SurvivingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        try:
            _check_version()
            self.loader.exec_module(module)
        except Exception as error:  # of any kind, in another package's import
            module.__all__ = []
            _register_stand_ins(error)


def _check_version() -> None:
    version = metadata.version("transformers")
    if Version(version) >= Version("5"):
        raise ImportError(f"{version}, without find_pruneable_heads_and_indices")


def _register_stand_ins(error: Exception) -> None:
    from mmaction.registry import MODELS as REGISTRY

    from polynl_mm.user_errors import UserError, first_line

    reason = first_line(error)
    for name in MODELS:

        def refuse(*args, name=name, **kwargs):
            raise UserError(
                f"{name} cannot be built: this mmaction2 does not work with the "
                f"installed transformers ({reason}); install one from 4.28 to below "
                "5 to use it."
            )

        # Registered as the real one is, so that a config asking for it gets the reason.
        REGISTRY.register_module(name=name, module=refuse, force=True)


def survive_newer_transformers() -> None:
    """Let ``import mmaction.models`` work beside any transformers."""
    if not any(isinstance(finder, VindLUFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, VindLUFinder())
