"""What PolyNL3d's reduction costs in accuracy, beside what it saves."""

import statistics
from pathlib import Path

from polynl_mm.analysis.accuracy.runs import ROOT
from polynl_mm.experiments.nagoya_fir_page import mean_and_spread, select
from polynl_mm.experiments.page_tables import write_table
from polynl_mm.text_files import parse_json, read_text

TABLE = "reduction"
PAGE = ROOT / "docs/performance.md"
RESULTS = ROOT / "docs/results"
# Reduction: what the two studies call the block.
TITLES = {1: "PolyNL3d", 4: "PolyNL3d, reduction 4", 8: "PolyNL3d, reduction 8"}


def format_reduction(people: list[dict], bookends: dict[str, dict]) -> str:
    """Lay the accuracies out as a Markdown table.

    Args:
        people (list[dict]): Results of the study on Nagoya FIR.
        bookends (dict[str, dict]): Results on Bookends, by title.

    Returns:
        str: A row for each reduction that both have.
    """
    lines = [
        "| reduction | Bookends, level 2, top-1 % | Nagoya FIR, three folds, top-1 % |",
        "|---|---|---|",
    ]
    for reduction, title in TITLES.items():
        runs = select(people, "frame-wise", title, folds="three")
        if not runs or title not in bookends:
            continue
        top1 = [100 * run["top1"] for run in bookends[title]["runs"]]
        spread = statistics.stdev(top1) if len(top1) > 1 else 0.0
        pairs = [(statistics.mean(top1), spread), mean_and_spread(runs)]
        cells = [f"{mean:.1f} ± {spread:.1f}" for mean, spread in pairs]
        lines.append(f"| {reduction} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_reduction(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Write the table into its page, where both studies have been made.

    Args:
        page (Path): docs/performance.md.
        results (Path): The folder of ``nagoya_fir.json`` and ``bookends_level2.json``.
    """
    files = [results / "nagoya_fir.json", results / "bookends_level2.json"]
    if all(file.is_file() for file in files):
        read = (parse_json(read_text(file, "result"), str(file)) for file in files)
        write_table(format_reduction(*read), page, TABLE)
