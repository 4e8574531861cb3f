"""Supplies the module that mmaction2 1.2.0's wheel lacks.

Mends: the wheel was built without ``mmaction/models/localizers/drn/``, so
``import mmaction.models`` fails. Switches itself off: the finder stands last in
``sys.meta_path``, so Python asks it only after the real module was not found.
"""

import importlib.abc
import importlib.machinery
import sys
import types

PACKAGE = "mmaction.models.localizers.drn"
MODULE = f"{PACKAGE}.drn"


class MissingDRNFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for ``mmaction.models.localizers.drn`` and its ``drn``."""

    def find_spec(self, fullname, path=None, target=None):
        """Return a module spec for the missing package and its module only."""
        if fullname not in (PACKAGE, MODULE):
            return None
        return importlib.machinery.ModuleSpec(
            fullname, self, is_package=fullname == PACKAGE, origin=__file__
        )

    def create_module(self, spec):
        """Leave the creation of the module to Python."""
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Fill the stand-in module with a DRN that says why it cannot be built."""
        if module.__name__ == MODULE:
            module.DRN = _stand_in_drn()


def supply_missing_drn() -> None:
    """Let ``import mmaction.models`` work where the wheel lacks DRN."""
    if not any(isinstance(finder, MissingDRNFinder) for finder in sys.meta_path):
        sys.meta_path.append(MissingDRNFinder())


def _stand_in_drn() -> type:
    class DRN:
        """Stands in for the localizer DRN, which this mmaction2 does not ship."""

        def __init__(self, *args, **kwargs):
            from polynl_mm.user_errors import UserError

            raise UserError(
                "DRN cannot be built because the installed mmaction2 was packaged "
                "without mmaction/models/localizers/drn; install mmaction2 from its "
                "source repository to use it."
            )

    # Registered as the real one is, so that a config asking for it gets the reason.
    from mmaction.registry import MODELS

    MODELS.register_module(name="DRN", module=DRN, force=True)
    return DRN
