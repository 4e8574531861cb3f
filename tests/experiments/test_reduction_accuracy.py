"""The table of accuracies beside the costs of PolyNL3d's reduction."""

import json
from pathlib import Path

from polynl_mm.experiments import nagoya_fir_page
from polynl_mm.experiments import reduction_accuracy as table
from polynl_mm.experiments.page_tables import marks

DOCS = Path(__file__).parents[2] / "docs"


def people(title, *right):
    about = dict(network="frame-wise", block=title, axes="time", folds="three")
    return [
        dict(
            about=dict(about, fold="three1"),
            seed=seed,
            people={"person1": [[of_100, 100 - of_100], [0, 0]]},
        )
        for seed, of_100 in enumerate(right)
    ]


def test_rows_are_what_both_studies_have(monkeypatch):
    monkeypatch.setitem(nagoya_fir_page.FOLDS, "three", ("three1",))
    runs = people("PolyNL3d", 90, 80) + people("PolyNL3d, reduction 4", 70)
    bookends = {
        title: dict(runs=[dict(top1=t) for t in (0.9, 1.0, 0.8)])
        for title in ("PolyNL3d", "PolyNL3d, reduction 8")
    }
    rows = table.format_reduction(runs, bookends).splitlines()[2:]
    assert rows == ["| 1 | 90.0 ± 10.0 | 85.0 ± 7.1 |"]


def test_page_has_the_files_numbers(tmp_path):
    page, results = DOCS / "performance.md", DOCS / "results"
    names = ("nagoya_fir.json", "bookends_level2.json")
    read = [json.loads((results / name).read_text()) for name in names]
    start, end = marks(table.TABLE)
    shown = page.read_text().split(start)[1].split(end)[0].strip()
    assert shown == table.format_reduction(*read) and len(shown.splitlines()) == 5
    copy = tmp_path / "performance.md"
    copy.write_text(f"{start}\n{end}\n")
    table.write_reduction(copy, results)
    assert shown in copy.read_text()
    table.write_reduction(tmp_path / "not there", tmp_path)  # nothing to write yet
