"""The report on a GPU, tried without one, and its tables in the documentation."""

import json
import subprocess
from pathlib import Path

import pytest

from polynl_mm.experiments import gpu_report
from polynl_mm.experiments.gpu_tables import format_report
from polynl_mm.experiments.page_tables import marks

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results/gpu.json"


def test_page_is_what_the_results_say():
    report = json.loads(RESULTS.read_text())
    start, end = marks("gpu")
    text = (ROOT / "docs/performance.md").read_text()
    assert f"{start}\n{format_report(report)}\n{end}" in text
    # What failed has no numbers in it.
    assert all(len(p) == 2 for p in report["parts"].values() if p["error"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_script_runs_without_a_gpu(tmp_path):
    """Every part of it, each a little."""
    done = subprocess.run(
        ["bash", ROOT / "tests/gpu.sh", "--device", "cpu", "--fast", "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert list(report["parts"]) == list(gpu_report.PARTS)
    parts = report["parts"]
    assert parts["tests"]["counts"]["passed"] > 10 and not parts["tests"]["failures"]
    assert set(parts["benchmark"]["points"]) == {"float32", "bfloat16"}
    assert parts["models"]["rows"]["no plugin"]["longest"]["16"] > 0
    assert set(parts["quickstart"]["results"]) == {"no_plugin", "poly_nl"}
    assert "| conv 1x1x1 |" in (tmp_path / "gpu.md").read_text()


def test_part_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_report, "FAST_PARTS", dict.fromkeys(gpu_report.PARTS, 0.01))
    page = tmp_path / "page.md"
    page.write_text("\n".join(marks("gpu")))
    line = ["--device", "cpu", "--fast", "--out", str(tmp_path), "--page", str(page)]
    assert gpu_report.main([*line, "--parts", "machine", "benchmark"]) == 1
    said = capsys.readouterr().out
    assert "machine failed" in said and "benchmark failed" in said
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert "took more than 0.01 seconds" in report["parts"]["machine"]["error"]


def test_wheels_and_gpu_that_are_not_there_are_named(tmp_path, capsys):
    done = subprocess.run(
        ["bash", ROOT / "tests/gpu.sh", "--wheels", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode and "has no wheels" in done.stderr
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            gpu_report.main(["--out", str(tmp_path)])
        assert "--device cpu --fast" in capsys.readouterr().err
