"""No tool writes over what it reads, or two results to one file."""

import os
from pathlib import Path

import pytest

# IN is a file that is read, OUT one to write: another name of it.
EXPLICIT = [
    "predict IN no.pth no.mp4 --json OUT",
    "predict no.py IN no.mp4 --json OUT",
    "predict no.py no.pth no.mp4 IN --json OUT",
    "predict no.py no.pth no.mp4 --labels IN --json OUT",
    "predict_timeline no.py no.pth IN --window 1 --annotated-video OUT",
    "predict_timeline no.py no.pth a.mp4 --labels IN --window 1 --annotated-video OUT",
    "analysis_tools/analyze_logs plot_curve no IN --out OUT",
    "analysis_tools/benchmark_models no.py IN --out OUT",
    "analysis_tools/confusion_matrix IN --out OUT",
    "analysis_tools/confusion_matrix IN --json OUT",
    "analysis_tools/confusion_matrix no.pkl --labels IN --json OUT",
    "analysis_tools/measure_clip_parallel IN --shape 3 4 8 8 --page OUT",
    "analysis_tools/per_class_accuracy IN --out OUT",
    "analysis_tools/per_class_accuracy no.pkl --labels IN --out OUT",
    "analysis_tools/report no --labels IN --out OUT",
    "analysis_tools/report_accuracy --preds IN --metrics OUT",
    "analysis_tools/report_accuracy --preds no.pkl IN --dump OUT",
    "convert/non_local_to_polynl IN OUT",
    "convert/non_local_to_polynl no.pth OUT --config IN",
    "convert/pyslowfast IN OUT",
    "convert/pyslowfast no.pth OUT --config IN",
    "convert/pyslowfast no.pth new.pth --yaml IN --model-config OUT",
    "data/check_videos IN --out OUT",
    "data/check_videos IN --report OUT",
    "data/kinetics/build_annotations --csv IN --videos no --out OUT",
    "data/kinetics/build_annotations --csv no --videos no --classes IN --out OUT",
    "data/kinetics/build_annotations --csv IN --videos no --out new --classes-out OUT",
    "deployment/export_onnx IN no.pth --shape 3 4 8 8 --out OUT",
    "deployment/export_onnx no.py IN --shape 3 4 8 8 --out OUT",
    "visualizations/browse_dataset IN --out OUT",
]
# What is read, the first in the folder o, lies where the tool would write by itself.
DERIVED = [
    "predict_timeline o/a_timeline.json no.pth a.mp4 --window 1 --out-dir o",
    "extract_features o/a.json no.pth list.txt --window 1 --out-dir o",
    "extract_features no.py o/a.npy list.txt --window 1 --out-dir o",
    "extract_features no.py o/a_scores.npy list.txt --window 1 --out-dir o --scores",
    "analysis_tools/benchmark_models o/a.md --out o/a.json",
    "analysis_tools/compare_plugins o/configs/PolyNL3d.py --plugins PolyNL3d --out o "
    "--shape 3 4 8 8",
    "analysis_tools/measure_clip_parallel o/clip_parallel.json --shape 3 4 8 8 --out o",
    "analysis_tools/measure_scaling o/scaling.json --shape 3 4 8 8 --out o",
    "data/check_videos o/b.journal --out o/b.txt",
    "data/check_videos list.txt --out o/sub/b.mp4",
    "data/kinetics/build_annotations --csv o/a_missing.csv --videos no --out o/a.txt",
    "visualizations/grad_cam o/a_grad_cam.npz no.pth a.mp4 --module a --out o",
    "visualizations/influence no.py o/a_influence.png a.mp4 --out o",
]
TWICE = [
    "predict_timeline no.py no.pth a.mp4 --window 1 --out-dir o "
    "--annotated-video o/a_timeline.png",
    "analysis_tools/confusion_matrix no.pkl --out o/a --json o/../o/a",
    "analysis_tools/measure_clip_parallel no.py --shape 3 4 8 8 --out o "
    "--page o/clip_parallel.json",
    "analysis_tools/report_accuracy --preds no.pkl --dump o/a --metrics ./o/a",
    "convert/pyslowfast no.pth o/a --model-config o/a",
    "data/check_videos list.txt --out o/a --report o/a",
    "data/kinetics/build_annotations --csv no --videos no --out a --classes-out ./a",
    "data/kinetics/build_annotations --csv no --videos no --out a "
    "--classes-out a_missing.csv",
    "reproduce/bookends --work-dir o --results o/a --page o/a",
    "reproduce/bookends_influence --work-dir o --page o/influence.json",
    "reproduce/nagoya_fir --work-dir o --results o/a --page o/a",
]


def contents() -> dict[str, str]:
    """Return what is below this folder."""
    files = (path for path in Path().rglob("*") if path.is_file())
    return {str(path): path.read_text() for path in files}


@pytest.fixture
def refusal(tool, tmp_path, monkeypatch, capsys):
    """Return a function that runs a command and gives the one sentence it ends with."""
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a.mp4 0\no/sub/b.mp4 1\n")

    def run(command):
        before = contents()
        name, *arguments = command.split()
        with pytest.raises(SystemExit) as left:
            tool(name).main(arguments)
        assert left.value.code == 2 and contents() == before
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


@pytest.mark.parametrize("command", EXPLICIT)
def test_output_is_an_input(refusal, command):
    Path("kept.json").write_text("kept")
    os.symlink("kept.json", "soft.json")
    os.link("kept.json", "hard.json")
    for name in ("kept.json", "soft.json", "hard.json"):
        said = refusal(command.replace("IN", "kept.json").replace("OUT", name))
        assert said.endswith(
            "kept.json, which would be overwritten; give another path."
        )
        assert said.startswith("Error: ") and f" {name} is the file of " in said


@pytest.mark.parametrize("command", DERIVED)
def test_derived_output_is_an_input(refusal, command):
    kept = Path(next(word for word in command.split() if word.startswith("o/")))
    kept.parent.mkdir(parents=True)
    kept.write_text("kept.mp4 0\n")
    said = refusal(command)
    assert f"{kept} is the file of " in said and "would be overwritten" in said


@pytest.mark.parametrize("command", TWICE)
def test_two_outputs_are_one_file(refusal, command):
    assert refusal(command).endswith(", too; give each a path of its own.")


@pytest.mark.parametrize("output", ["--dump", "--metrics"])
def test_outputs_of_test(tiny_config, tmp_path_factory, refusal, output):
    config = tiny_config(tmp_path_factory.mktemp("config") / "tiny.py")
    Path("kept").write_text("kept")
    for command in (
        f"test {config} kept {output} kept",
        f"test {config} no.pth {output} {config}",
        f"test {config} no.pth {output} kept --cfg-options "
        f"test_dataloader.dataset.ann_file={Path('kept').absolute()}",
    ):
        assert "would be overwritten" in refusal(command)
    said = refusal(f"test {config} no.pth --dump a --metrics a")
    assert said.endswith(" is the file of --metrics, too; give each a path of its own.")
