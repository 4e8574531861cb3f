"""Markdown tables of what plugins cost whole networks, from the file of the numbers."""

from collections.abc import Mapping
from pathlib import Path

# Of each quantity: its title and its number, then its ratios and what they are to.
_TABLES = {
    "latency": ("inference, one clip", "latency_ms", "ms"),
    "training": ("training step", "training_ms", "ms"),
    "memory": ("peak memory of a training step", "peak_mib", "MiB"),
    "speed": ("decoding and training", "clips_per_second", "clips a second"),
}
_OPERATIONS = {"latency": "operations", "training": "training_operations"}


def format_networks(results: Mapping) -> str:
    """Lay the results out, a table for each quantity, a row for each variant.

    Args:
        results (Mapping): What ``benchmark_models.py`` wrote: ``machine``,
            ``networks``.

    Returns:
        str: Markdown. Ratios are to the network with no plugin, and to that with
        mmcv's block.
    """
    measured = results["networks"][0]["variants"][0]
    tables = [
        _format(results["networks"], quantity)
        for quantity in _TABLES
        if _TABLES[quantity][1] in measured
    ]
    return "\n\n".join(tables)


def _format(networks, quantity: str) -> str:
    title, key, unit = _TABLES[quantity]
    operations = _OPERATIONS.get(quantity)
    columns = [title, unit, "to no plugin", "to mmcv's"]
    if operations:
        columns += ["operations to no plugin", "time / operations"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for network in networks:
        shape = " x ".join(map(str, network["shape"]))
        for row in network["variants"]:
            cells = [
                f"{_short(network['config'])}, {shape}: {row['variant']}",
                f"{row[key]:.0f}" if row[key] >= 100 else f"{row[key]:.3g}",
                f"{row[quantity]:.2f}",
                f"{row[f'{quantity}_to_mmcv']:.2f}",
            ]
            if operations:
                cells.append(f"{row[operations]:.3f}")
                cells.append(f"{row[f'{quantity}_over_operations']:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(config: str) -> str:
    """Return what a config's name begins with, its model: ``slowonly``."""
    return Path(config).stem.split("_")[0]
