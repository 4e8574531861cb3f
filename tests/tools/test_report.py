"""The report: one file that opens without a network and without a complaint."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import open_page
from conftest import write_video
from dumps import write_dump

from polynl_mm.analysis.report.page import write_report
from polynl_mm.analysis.report.recorded_runs import config_differences, read_run
from polynl_mm.commands import reporting
from polynl_mm.user_errors import UserError

TOOL = "analysis_tools/report"
CLASSES = [f"class </script><b>{index}</b>" for index in range(12)]
HOSTILE = "</script><script>throw 1</script>"


def make_work_dir(folder: Path, config: str, accuracy: float, names: list[str]) -> Path:
    """Write what a training and a test of twelve classes leave."""
    records = folder / "20260101_000000" / "vis_data"
    records.mkdir(parents=True)
    lines = []
    for epoch in range(1, 4):
        lines.append(
            dict(loss=1 / epoch, lr=0.1, time=0.1, epoch=epoch, step=epoch * 9)
        )
        lines.append({"acc/top1": accuracy * epoch / 3, "step": epoch})
    (records / "scalars.json").write_text("\n".join(map(json.dumps, lines)))
    (records / "config.py").write_text(config)
    (records.parent / "20260101_000000.log").write_text(
        "2026 - INFO - \n------\nSystem environment:\n    PyTorch: 9.9\n    A: b: c\n"
    )
    rng = np.random.default_rng(int(100 * accuracy))
    labels = np.arange(24) % 12
    scores = rng.random((24, 12)) * 0.5
    right = rng.random(24) < accuracy
    scores[np.arange(24)[right], labels[right]] = 1
    scores[0, 5] = 2  # the most confused
    write_dump(folder / "scores.pkl", scores.tolist(), labels.tolist(), names)
    return folder


@pytest.fixture(scope="module")
def work_dirs(tiny_config, tiny_dataset, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    config = tiny_config(root / "tiny.py", preamble="CLASSES = 12")
    text = config.read_text().replace("num_classes=2", "num_classes=12")
    videos = [str(tiny_dataset / "videos" / f"{i % 12}.mp4") for i in range(24)]
    videos[0] = f"missing {HOSTILE}.mp4"
    return [
        make_work_dir(root / "no_plugin", text, 0.3, videos),
        make_work_dir(root / "poly_nl", text.replace("0.05", "0.07"), 0.8, videos),
    ]


@pytest.fixture(scope="module")
def report(tool_of_report, work_dirs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    file = folder / "report.html"
    tool_of_report.main(
        [
            *map(str, work_dirs),
            *("--out", str(file), "--labels", str(folder / "classes.txt")),
            *("--legend", HOSTILE, "PolyNL3d", "--title", "Twelve & more"),
            *("--confused", "3", "--rounds", "1"),
        ]
    )
    return file


@pytest.fixture(scope="module")
def tool_of_report(tool):
    pytest.importorskip("bokeh")
    return tool(TOOL)


def test_page_needs_nothing_else(report):
    text = report.read_text(encoding="utf-8")
    assert "Twelve &amp; more" in text and HOSTILE not in text
    # Apart from the scripts, in which addresses are never fetched.
    page = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["']?(?!data:)\w""", page)
    assert page.count("<img") >= 3 and "no frame could be read" in page


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1400, False)])
def test_page_opens_draws_and_sorts(report, width, dark):
    with open_page(report, width, dark) as (page, said):
        assert said == []
        # Three curves, two of accuracy and cost, two matrices.
        assert page.locator(".bk-Figure").count() == 7
        for plot in page.locator(".bk-Figure").all():
            assert plot.bounding_box()["width"] > 200
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") != dark
        table = page.locator(".bk-DataTable").first
        head = table.locator(".slick-header-column", has_text="top-1").first
        orders = []
        for _ in range(2):
            head.click()
            page.wait_for_timeout(200)
            cells = table.locator(".slick-row .slick-cell.l1").all_inner_texts()
            orders.append([float(cell) for cell in cells])
        assert sorted(orders[0]) in orders and sorted(orders[0])[::-1] in orders
        assert said == []


def test_differences_and_environment(work_dirs):
    runs = [read_run(folder) for folder in work_dirs]
    assert config_differences(runs) == {"optim_wrapper.optimizer.lr": ["0.05", "0.07"]}
    assert runs[0].environment == {"PyTorch": "9.9", "A": "b: c"}
    assert runs[1].title == "poly_nl"
    assert runs[1].accuracies["top1"] > runs[0].accuracies["top1"]


def test_influence_is_shown_where_it_is_given(work_dirs, tmp_path):
    pytest.importorskip("bokeh")
    asked = []

    def influence(run, video):
        asked.append((run.title, video))
        return b"\x89PNG map" if len(asked) == 1 else None

    runs = [read_run(work_dirs[0])]
    write_report(runs, tmp_path / "a.html", "A", confused=2, influence=influence)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert len(asked) == 2 and text.count("where the model looked") == 1


def test_what_lacks_is_said(tmp_path, work_dirs):
    folder = tmp_path / "run"
    vis = folder / "20260101_000000" / "vis_data"
    vis.mkdir(parents=True)
    scalars = next(work_dirs[0].glob("*/vis_data/scalars.json"))
    (vis / "scalars.json").write_text(scalars.read_text())
    run = read_run(folder)
    notes = " ".join(run.notes)
    assert "tools/test.py CONFIG CHECKPOINT --dump" in notes and "no config" in notes
    assert run.accuracies == {"top1": 0.3}


def test_mistakes(tool_of_report, work_dirs, tmp_path, monkeypatch, capsys):
    def refused(*arguments):
        with pytest.raises(SystemExit):
            tool_of_report.main([str(work_dirs[0]), *arguments])
        return capsys.readouterr().err

    assert "takes an .html file" in refused("-o", str(tmp_path / "a.txt"))
    assert "from 0, not -1" in refused("-o", str(tmp_path / "a.html"), "--confused=-1")
    assert "names for 1 trainings" in refused("--legend", "a", "b")
    with pytest.raises(UserError, match="has no <time>/vis_data"):
        read_run(tmp_path)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    assert "pip install -e" in refused("-o", str(tmp_path / "a.html"))


def test_video_of_the_dump_is_found(tmp_path):
    from polynl_mm.analysis.report.confused_clips import strip_of

    write_video(tmp_path / "a.mp4")
    assert strip_of(str(tmp_path / "a.mp4")).startswith("data:image/jpeg;base64,")
    assert strip_of(str(tmp_path / "b.mp4")) == ""
    (tmp_path / "c.mp4").write_bytes(b"no video")
    assert strip_of(str(tmp_path / "c.mp4")) == ""


def test_confused_clips_show_where_the_plugin_looked(
    tool, tool_of_report, tiny_config, tiny_dataset, tmp_path
):
    """A trained run with a plugin has maps in the page, one without has none."""
    from polynl_mm.commands.looked_at import draw_looks

    plugin = (
        "\nmodel['backbone'].update(type='WithPlugins', of='ResNet3dSlowOnly', "
        "plugins=[dict(cfg=dict(type='PolyNL3d', zero_init=False))])\n"
    )
    video = str(tiny_dataset / "videos" / "0.mp4")
    for name, extra in {"plain": "", "poly_nl": plugin}.items():
        config = tiny_config(tmp_path / f"{name}.py", extra=extra)
        folder = tmp_path / name
        tool("train").main([str(config), "--work-dir", str(folder), "--seed", "0"])
        run = read_run(folder)
        before = list(run.notes)
        picture = draw_looks(run, video)
        assert run.notes == before
        assert (picture or b"").startswith(b"\x89PNG") == (name == "poly_nl")
        assert draw_looks(run, "missing.mp4") is None
        scores = [[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]
        videos = [str(tiny_dataset / "videos" / f"{i}.mp4") for i in range(3)]
        write_dump(folder / "scores.pkl", scores, [0, 0, 0], videos)
    assert "missing.mp4" in run.notes[-1]
    page = tmp_path / "report.html"
    folders = [str(tmp_path / name) for name in ("plain", "poly_nl")]
    tool_of_report.main([*folders, "--out", str(page), "--rounds", "0"])
    clips = page.read_text(encoding="utf-8").split("<figure>")[1:]
    shown = ["where the model looked" in clip for clip in clips]
    assert shown == [False, False, True, True]  # two are confused in each run
    (folder / "last_checkpoint").unlink()
    assert draw_looks(run, video) is None and "last_checkpoint" in run.notes[-1]
    tool_of_report.main([str(folder), "--out", str(page), "--rounds", "0"])
    assert run.notes[-1] in page.read_text(encoding="utf-8")
