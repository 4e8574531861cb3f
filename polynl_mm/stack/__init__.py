"""What mends mmengine, mmcv and mmaction2; each file says what it mends.

``import polynl_mm`` calls :func:`check_requirements` and :func:`install`.
"""

from polynl_mm.stack.requirements import check_requirements, require_mmaction2

# Of command lines, which are read before torch is imported.
LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
TRUST_OPTION = "--trust-checkpoint"

__all__ = [
    "LAUNCHERS",
    "TRUST_OPTION",
    "check_requirements",
    "install",
    "require_mmaction2",
]


def install() -> None:
    """Apply all shims; safe to call again. Each module says what it mends."""
    # Imported here, because they need what check_requirements() looks for.
    import torch

    from polynl_mm.stack import (
        bfloat16,  # noqa: F401  (registers its optimizer wrapper)
        resumable,  # noqa: F401  (registers its hooks)
    )
    from polynl_mm.stack.atomic_writes import install_atomic_writes
    from polynl_mm.stack.explained_errors import explain_errors_of_stack
    from polynl_mm.stack.forks_at_rest import fork_at_rest
    from polynl_mm.stack.formatted_configs import format_configs_once
    from polynl_mm.stack.missing_drn import supply_missing_drn
    from polynl_mm.stack.newer_transformers import survive_newer_transformers
    from polynl_mm.stack.operation_counters import count_all_products
    from polynl_mm.stack.package_configs import find_configs_by_name
    from polynl_mm.stack.plain_param_groups import make_param_groups_plain
    from polynl_mm.stack.recomputation import mend_activation_checkpointing
    from polynl_mm.stack.safe_checkpoints import install_safe_loading

    if torch.distributed.is_available():
        from polynl_mm.stack import sharding  # noqa: F401  (registers its strategy)

    supply_missing_drn()
    survive_newer_transformers()
    install_safe_loading()
    install_atomic_writes()
    explain_errors_of_stack()
    fork_at_rest()
    format_configs_once()
    make_param_groups_plain()
    mend_activation_checkpointing()
    find_configs_by_name()
    count_all_products()
