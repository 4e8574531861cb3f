"""Living with MMEngine: compatibility, safe checkpoints, process groups.

``import polynl_mm`` calls :func:`check_requirements` and :func:`install`.
"""

from polynl_mm.runtime.requirements import check_requirements, require_mmaction2
from polynl_mm.runtime.user_errors import UserError, user_errors

__all__ = [
    "UserError",
    "check_requirements",
    "install",
    "require_mmaction2",
    "user_errors",
]


def install() -> None:
    """Apply all shims; safe to call again. Each module says what it mends."""
    # Imported here, because they need what check_requirements() looks for.
    import torch

    from polynl_mm.runtime import (
        bfloat16,  # noqa: F401  (registers its optimizer wrapper)
        model_match,  # noqa: F401  (registers its hook)
        resumable,  # noqa: F401  (registers its hooks)
    )
    from polynl_mm.runtime.atomic_files import install_atomic_files
    from polynl_mm.runtime.checkpoints import install_safe_loading
    from polynl_mm.runtime.missing_drn import supply_missing_drn
    from polynl_mm.runtime.operation_counters import count_all_products

    if torch.distributed.is_available():
        from polynl_mm.runtime import sharding  # noqa: F401  (registers its strategy)

    supply_missing_drn()
    install_safe_loading()
    install_atomic_files()
    count_all_products()
