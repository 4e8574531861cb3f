"""Running tools, and reading what MMEngine leaves."""

import json
import os
import sys
import time

import pytest
from mmengine_scalars import SCALARS

from polynl_mm.analysis.accuracy import runs
from polynl_mm.user_errors import UserError


@pytest.fixture
def run(tmp_path):
    """Make the work dir of a run that was started twice."""
    for name, records in ("20260101_000000", SCALARS[:3]), ("20260102_000000", SCALARS):
        folder = tmp_path / "run" / name / "vis_data"
        folder.mkdir(parents=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "scalars.json").write_text(lines)
    return tmp_path / "run"


def test_scalars_of_the_newest_start_are_found(run, tmp_path):
    assert runs.read_scalars(runs.find_scalars(run)) == SCALARS
    assert runs.find_scalars(tmp_path / "nothing here") is None


def test_half_written_line_is_left_out(run):
    path = runs.find_scalars(run)
    path.write_text(path.read_text() + '{"acc/top1": 0.9')
    assert runs.read_scalars(path) == SCALARS


def test_accuracy_curve_and_time():
    assert runs.accuracy_curve(SCALARS) == [0.55, 0.95]
    # (2 * 0.5 + 3 * 1.0 + 5 * 2.0) / 2
    assert runs.seconds_per_epoch(SCALARS) == pytest.approx(7.0)


def test_epochs_are_reported_once(run, capsys):
    path = runs.find_scalars(run)
    lines = path.read_text().splitlines(keepends=True)
    reporter = runs.EpochReporter(run, "PolyNL3d", 2)
    for end in (2, 4, 4, 5):
        path.write_text("".join(lines[:end]))
        reporter()
    assert capsys.readouterr().out.splitlines() == [
        "  PolyNL3d, epoch 1 of 2: validation top-1 55.0%",
        "  PolyNL3d, epoch 2 of 2: validation top-1 95.0%",
    ]


def test_failing_tool_is_reported_with_its_last_lines(tmp_path, capsys):
    script = tmp_path / "fail.py"
    script.write_text("for i in range(99): print('line', i)\nraise SystemExit(3)")
    with pytest.raises(UserError, match=r"fail\.py ended with status 3.*fail\.log"):
        runs.run_tool([sys.executable, str(script)], tmp_path / "fail.log")
    error = capsys.readouterr().err
    assert "line 98" in error and "line 69" in error and "line 68" not in error


def test_interruption_ends_the_tool(tmp_path):
    marker = tmp_path / "pid"
    script = tmp_path / "sleep.py"
    script.write_text(
        f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(60)"
    )

    def interrupt():
        if marker.exists() and marker.read_text():
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runs.run_tool([sys.executable, str(script)], tmp_path / "log", interrupt)
    assert time.monotonic() - start < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
