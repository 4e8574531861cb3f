"""The page on performance shows the numbers of the file that was measured."""

import json
from pathlib import Path

from polynl_mm.analysis.cost.network_tables import format_networks
from polynl_mm.experiments.page_tables import END, START

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_page_and_file_are_alike():
    results = json.loads((DOCS / "results" / "whole_networks.json").read_text())
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert f"{START}\n{format_networks(results)}\n{END}" in page
    assert {len(network["variants"]) for network in results["networks"]} == {5}
