"""What sharing clips costs: the table, and one real measurement without its seconds."""

import json
import re

import pytest

from polynl_mm.analysis.cost.clip_sharing import Cost, format_table
from polynl_mm.commands import measure_clip_parallel

PAGE = (
    "# Costs\n\n<!-- clip-parallel: begin -->\nold\n<!-- clip-parallel: end -->\nend\n"
)


def test_table_compares_the_largest_rank_round_by_round():
    alone = Cost(1000_000_000, 100_000_000, [1.0, 2.0, 4.0])
    ranks = [
        Cost(400_000_000, 150_000_000, [1.0, 1.0, 2.0], 300, 600, 100, 50_000_000),
        Cost(
            500_000_000,
            150_000_000,
            [0.5, 3.0, 2.0],
            600_000,
            300_000,
            100_000,
            50_000_000,
        ),
    ]
    table = format_table(alone, ranks)
    assert "| a rank of 2 |" in table
    assert "| 1000 MB | 500 MB | 0.50 |" in table
    assert "| 2.00 s | 2.00 s | 0.50 |" in table
    assert "1.0 MB" in table and "0.6 MB (60%)" in table


@pytest.mark.slow
def test_a_rank_holds_half_of_the_features(tiny_config, tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.py")
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    measure_clip_parallel.main(
        [
            *(str(config), "--shape", "3", "8", "48", "48", "--ranks", "2"),
            *("--batch-size", "4", "--steps", "1", "--rounds", "2", "--threads", "1"),
            *("--device", "cpu", "--out", str(tmp_path), "--page", str(page)),
            *("--cfg-options", "model.backbone.inflate=(1,)"),
        ]
    )
    found = json.loads((tmp_path / "clip_parallel.json").read_text())
    alone, ranks = found["one_process"], found["ranks"]
    assert len(ranks) == 2 and len(alone["seconds"]) == 2
    assert all(0.4 < rank["memory"] / alone["memory"] < 0.6 for rank in ranks)
    assert all(rank["halos"] > 0 and rank["sums"] > 0 for rank in ranks)
    assert alone["halos"] == alone["sums"] == alone["gradients"] == 0
    table = capsys.readouterr().out.strip()
    text = page.read_text()
    assert table in text and "old" not in text and text.endswith("end\n")


@pytest.mark.parametrize(
    "options, said",
    [
        (["--shape", "3", "9", "8", "8"], "A clip of 9 frames .* 2 ranks"),
        (
            ["--shape", "3", "8", "8", "8", "--ranks", "1"],
            "--ranks is a whole number from 2",
        ),
    ],
)
def test_refusals(tiny_config, tmp_path, capsys, options, said):
    config = tiny_config(tmp_path / "tiny.py")
    with pytest.raises(SystemExit):
        measure_clip_parallel.main(
            [str(config), *options, "--device", "cpu", "--out", str(tmp_path / "out")]
        )
    assert re.search(said, capsys.readouterr().err)
