"""The benchmark's arithmetic and files; it asserts nothing on seconds."""

import csv
import json
from dataclasses import replace

import pytest
import torch

import polynl_mm
from polynl_mm.analysis.cost import compare
from polynl_mm.analysis.cost.benchmark import (
    FLOOR,
    SUBJECTS,
    Setting,
    benchmark,
    write_results,
)
from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.analysis.cost.peers import PlainPolyNL3d
from polynl_mm.analysis.cost.sweep_results import fit_slope, format_table

TOOL = "analysis_tools/benchmark_plugins"
SMALL = Setting(channels=16, clip_lengths=(1, 2), size=6, repeats=1)


def test_every_subject_runs_and_files_are_written(tmp_path):
    saved = []

    def save(points):
        saved.append(len(points))
        write_results(points, SMALL, tmp_path)

    points = benchmark(SMALL, save=save)
    assert len(points) == len(SUBJECTS) * 2 * 2
    assert saved == [len(points) // 2, len(points)]
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert content["setting"]["channels"] == 16 and len(content["points"]) == len(
        points
    )
    with open(tmp_path / "benchmark.csv") as file:
        assert len(list(csv.DictReader(file))) == len(points)
    for name in ("time.png", "memory.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    table = format_table(points)
    assert table.count("| PolyNL3d |") == 2 and "N = 36" in table


def test_quadratic_subjects_are_left_out_where_they_would_not_fit():
    tight = Setting(
        channels=8, clip_lengths=(1, 2), size=4, repeats=1, max_affinity=1100
    )
    one_key_in_four = "mmcv NonLocal3d, sub_sample"
    everywhere = {"PolyNL3d", one_key_in_four}
    points = benchmark(tight, ["mmcv NonLocal3d", *everywhere])
    for subject in everywhere:
        assert {p.positions for p in points if p.subject == subject} == {16, 32}
    assert {p.positions for p in points if p.subject not in everywhere} == {16}
    tighter = replace(tight, clip_lengths=(2,), max_affinity=1000)
    points = benchmark(tighter, everywhere)
    assert {p.subject for p in points} == {"PolyNL3d"}


def test_slope_of_a_power():
    sizes = [100, 200, 400]
    assert fit_slope(sizes, [3 * n**2 for n in sizes]) == pytest.approx(2)


def test_peak_memory_counts_what_is_held_at_once():
    def call():
        a = torch.empty(2**18)  # 1 MiB
        b = torch.empty(2**18)
        del a, b
        torch.empty(2**18)

    peak = peak_extra_memory(call, torch.device("cpu"))
    assert peak == pytest.approx(2 * 2**20, rel=0.01)


def test_non_local_peers_hold_the_affinity_and_ours_do_not():
    setting = Setting(channels=16, clip_lengths=(4,), size=16, repeats=1)
    names = ["mmcv NonLocal3d", "NonLocalBlock3d", "PolyNL3d", FLOOR]
    peaks = {p.subject: p.peak_mib for p in benchmark(setting, names) if not p.training}
    affinity = 4 * 1024**2 / 2**20
    assert peaks["mmcv NonLocal3d"] > affinity
    assert peaks["NonLocalBlock3d"] < affinity / 2 and peaks["PolyNL3d"] < affinity / 4


def test_plain_poly_nl_is_poly_nl():
    plain, ours = PlainPolyNL3d(8), polynl_mm.PolyNL3d(8)
    ours.load_state_dict(plain.state_dict())
    for module in (plain, ours):
        torch.nn.init.constant_(module.alpha, 0.7)
    x = torch.randn(2, 8, 3, 4, 5)
    torch.testing.assert_close(plain(x), ours(x))


def test_plugins_are_measured_compiled_and_peers_are_not(monkeypatch):
    compiled = []

    def compile_eagerly(module, fullgraph):
        assert fullgraph
        compiled.append(type(module).__name__)
        return compile_module(module, fullgraph=True, backend="eager")

    compile_module = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    setting = replace(SMALL, clip_lengths=(2,), compiled=True)
    benchmark(setting, [FLOOR, "PolyNL3d", "SpectralNL3d"])
    assert compiled == ["PolyNL3d", "SpectralNL3d"] * 2


class Seen(torch.nn.Module):
    """A subject that notes what it is measured with."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.calls = torch.nn.Conv3d(channels, channels, 1), []

    def forward(self, x):
        y = self.conv(x)
        threads = torch.get_num_threads()
        self.calls.append((tuple(x.shape), y.dtype, y.device.type, threads))
        return y


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_options_say_what_is_measured(tool, monkeypatch, tmp_path, threads):
    subjects = []

    def build(channels):
        subjects.append(Seen(channels))
        return subjects[-1]

    monkeypatch.setitem(SUBJECTS, "Seen", build)
    options = ["--subjects", "Seen", FLOOR, "--channels", "4", "--size", "3"]
    options += ["--clip-lengths", "2", "5", "--batch", "2", "--dtype", "bfloat16"]
    options += ["--device", "cpu", "--repeats", "3", "--threads", str(threads + 1)]
    tool(TOOL).main([*options, "--out", str(tmp_path / "b")])
    points = json.loads((tmp_path / "b" / "benchmark.json").read_text())["points"]
    assert {point["subject"] for point in points} == {"Seen", FLOOR}
    assert len(subjects) == 4  # two clip lengths, training or not
    for subject, clip_len in zip(subjects, (2, 2, 5, 5), strict=True):
        shape = (2, 4, clip_len, 3, 3)
        assert set(subject.calls) == {(shape, torch.bfloat16, "cpu", threads + 1)}
    calls = len(subjects[0].calls)
    options[options.index("--repeats") + 1] = "4"
    tool(TOOL).main([*options, "--out", str(tmp_path / "b")])
    assert len(subjects[4].calls) == calls + 1


def test_compile_option(tool, monkeypatch, tmp_path):
    compiled = []

    def leave_as_it_is(module, fullgraph):
        compiled.append(type(module).__name__)
        return module

    monkeypatch.setattr(torch, "compile", leave_as_it_is)
    options = ["--subjects", "PolyNL3d", "--channels", "4", "--size", "3"]
    options += ["--clip-lengths", "2", "--repeats", "1", "--out", str(tmp_path)]
    tool(TOOL).main(options)
    assert compiled == []
    tool(TOOL).main([*options, "--compile"])
    assert compiled == ["PolyNL3d"] * 2  # forward, and with gradients


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (TOOL, ["--subjects", "PolyNL"], "there is no 'PolyNL'; did you mean 'PolyNL"),
        (TOOL, ["--clip-lengths", "2", "0"], "--clip-lengths is a whole number from 1"),
        (TOOL, ["--repeats", "0"], "--repeats is a whole number from 1, not 0"),
        ("analysis_tools/compare_schedules", ["--threads", "0"], "--threads is a whol"),
    ],
)
def test_unfit_options(tool, capsys, name, options, sentence):
    with pytest.raises(SystemExit) as left:
        tool(name).main(options)
    assert left.value.code == 2
    assert sentence in capsys.readouterr().err


def test_threads_and_repeats_of_comparisons(tool, monkeypatch, threads, capsys):
    calls = []

    def call():
        calls.append(torch.get_num_threads())
        torch.empty(2**10)  # so that there is memory to compare

    for name in ("operations", "training_steps"):
        monkeypatch.setattr(compare, name, lambda: [("a pair", call, call)])
    for name in ("modules", "quadratic_modes"):
        monkeypatch.setattr(compare, name, lambda: [])
    main, made = tool("analysis_tools/compare_schedules").main, {}
    for repeats in (2, 3):
        main(["--threads", str(threads + 1), "--repeats", str(repeats)])
        assert set(calls) == {threads + 1}
        made[repeats] = len(calls)
        calls.clear()
    # Two calls of each of two pairs in a turn.
    assert made[3] - made[2] == 4
    assert capsys.readouterr().out.count("| a pair |") == 4


def test_comparison_pairs_agree():
    """What is timed against each other computes the same."""
    pairs = list(compare.operations(positions=50, width=8))
    assert len(pairs) == 5
    for name, slow, fast in pairs:
        assert torch.allclose(slow(), fast(), atol=1e-4), name
    seconds = compare.compare(lambda: None, lambda: None, repeats=3)
    assert len(seconds) == 3
