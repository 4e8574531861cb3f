"""The tables of the report on a GPU, for its folder and for docs/performance.md."""

from collections.abc import Mapping

OURS, FLOOR, PLAIN = "PolyNL3d", "conv 1x1x1", "Poly-NL as three convolutions"


def format_report(report: Mapping) -> str:
    """Lay a report out as Markdown.

    Args:
        report (Mapping): Of ``tests/gpu.sh``, or what it has of its parts.

    Returns:
        str: A section for each part that there is.
    """
    parts = report["parts"]
    sections = [
        format_part(parts[name])
        for name, format_part in {
            "machine": format_machine,
            "tests": format_tests,
            "benchmark": format_benchmark,
            "models": format_models,
            "quickstart": format_quickstart,
        }.items()
        if parts.get(name)
    ]
    return "\n\n".join(filter(None, sections))


def format_machine(part: Mapping) -> str:
    """Say in a sentence what the machine is and reaches."""
    if "name" not in part:
        return ""
    peaks = ", ".join(f"{k} {v / 1e12:.0f}" for k, v in part["flops"].items())
    return (
        f"{part['name']}, torch {part['torch']}: a copy moves "
        f"{part['bytes_per_second'] / 1e12:.2f} TB/s, matrix products reach "
        f"{peaks} TFLOP/s."
    )


def format_tests(part: Mapping) -> str:
    """Say in a sentence how many tests passed."""
    if "counts" not in part:
        return ""
    counts = ", ".join(f"{n} {what}" for what, n in sorted(part["counts"].items()))
    return f"Tests: {counts}."


def format_benchmark(part: Mapping) -> str:
    """Lay out the times of the blocks, as multiples of one convolution's."""
    tables = []
    for key, how in (("points", ""), ("replayed", ", as a CUDA graph")):
        for dtype, points in part.get(key, {}).items():
            for training, what in ((False, "inference"), (True, "a training step")):
                chosen = [p for p in points if p["training"] == training]
                if chosen:
                    tables.append(_times(f"{dtype}, {what}{how}", chosen))
    return "\n\n".join(tables)


def _times(title: str, points: list[Mapping]) -> str:
    lengths = sorted({p["positions"] for p in points})
    by_subject: dict[str, dict[int, Mapping]] = {}
    for point in points:
        by_subject.setdefault(point["subject"], {})[point["positions"]] = point
    head = " | ".join(f"N = {n:,}".replace(",", " ") for n in lengths)
    lines = [f"| {title} | {head} |", f"|---|{'---|' * len(lengths)}"]
    for subject, row in by_subject.items():
        cells = [_cell(row.get(n), by_subject[FLOOR].get(n), subject) for n in lengths]
        lines.append(f"| {subject} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(point: Mapping | None, floor: Mapping | None, subject: str) -> str:
    if point is None or floor is None:
        return "-"
    time, base = point["milliseconds"], floor["milliseconds"]
    text = f"{time:.3f} ms" if subject == FLOOR else f"{time / base:.2f}"
    share = point.get("roofline")
    return f"{text} ({share:.0%})" if share is not None else text


_STEPS = {
    "milliseconds": "step",
    "kernel_milliseconds": "kernels alone",
    "compiled_milliseconds": "compiled",
}


def format_models(part: Mapping) -> str:
    """Lay out the training steps of the whole network."""
    rows = part.get("rows") or {}
    if not any("milliseconds" in row for row in rows.values()):
        return ""
    base = next(iter(rows.values()))
    steps = [key for key in _STEPS if key in base]
    heads = ["network", "operations"]
    for key in steps:
        heads += [f"{_STEPS[key]}, ms", "ratio"]
    heads += ["GB", "longest clip in 16, 40, 80 GB"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        cells = [name, f"{row['gflops'] / base['gflops']:.3f}"]
        for key in steps:
            there = key in row
            cells.append(f"{row[key]:.1f}" if there else "-")
            cells.append(f"{row[key] / base[key]:.3f}" if there else "-")
        cells.append(f"{row['bytes'] / 1e9:.1f}" if "bytes" in row else "-")
        cells.append(", ".join(map(str, row.get("longest", {}).values())) or "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_quickstart(part: Mapping) -> str:
    """Say in a sentence what the quickstart gave."""
    results = part.get("results")
    if not results:
        return ""
    said = ", ".join(
        f"{name} {row['top1']:.1%} at {row['seconds_per_epoch']:.1f} s an epoch"
        for name, row in results.items()
    )
    return f"Quickstart: {said}; {part['seconds_in_all']:.0f} s in all."
