"""What an install carries: a wheel alone trains, resumes, tests and predicts."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from polynl_mm import __main__ as front
from polynl_mm.experiments import model_index
from polynl_mm.installation import CARRIED, CONFIGS, TOOLS

REPO = Path(__file__).resolve().parents[1]
CONFIG = "polynl_mm::bookends/slowonly_r18-polynl_2xb16-8x2x1-5e_bookends-rgb.py"
CHILD = f"""
_base_ = ["{CONFIG}"]
train_cfg = dict(max_epochs=2)
train_dataloader = dict(batch_size=4)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source") / "polynl_mm"
    kept = ("polynl_mm", "configs", "tools", "requirements")
    for folder in kept:
        shutil.copytree(REPO / folder, source / folder, symlinks=True)
    for file in REPO.iterdir():
        if file.is_file():
            shutil.copy(file, source)
    target = source.parent
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    command += ["--no-build-isolation", "--wheel-dir", target, source]
    done = subprocess.run(command, capture_output=True, text=True)
    if "BackendUnavailable" in done.stderr or "No module named" in done.stderr:
        pytest.skip("setuptools is not in this environment")
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl"))


def test_wheel_holds_what_a_checkout_has(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder in (CONFIGS, TOOLS):
        for file in folder.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(CARRIED).as_posix()
                assert f"polynl_mm/.mim/{name}" in held
    assert "polynl_mm/.mim/model-index.yml" in held
    assert not [name for name in held if name.startswith("tests")]


@pytest.mark.slow
def test_wheel_alone_trains_resumes_tests_and_predicts(wheel, tmp_path):
    site, here = tmp_path / "site", tmp_path / "somewhere"
    here.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    subprocess.run([*command, "--target", site, wheel], check=True)
    env = dict(os.environ, PYTHONPATH=str(site), OMP_NUM_THREADS="1")

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "polynl_mm", *map(str, arguments)],
            cwd=here,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    run("bookends/generate", "data/bookends", "--train", "16", "--val", "4")
    (here / "child.py").write_text(CHILD)
    epochs = ["--cfg-options", "train_cfg.max_epochs=1"]
    said = run("train", "child.py", "--work-dir", "w", *epochs)
    assert str(REPO) not in said
    run("dist_train", "child.py", "2", "--work-dir", "w", "--resume")
    checkpoint = "w/epoch_2.pth"
    assert "acc/top1" in run("test", CONFIG, checkpoint, "--work-dir", "w")
    video = next((here / "data" / "bookends").rglob("*.mp4"))
    assert "0." in run("predict", CONFIG, checkpoint, video.relative_to(here))
    assert str(site) in run_python(here, env, "polynl_mm.__file__")


def run_python(folder, env, expression):
    code = f"import polynl_mm; print({expression})"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    ).stdout


def test_every_tool_has_a_name_and_a_line(capsys):
    assert front.main(["--help"]) == 0
    said = capsys.readouterr().out
    for name in front.find_tools():
        (line,) = [x for x in said.splitlines() if x.startswith(f"  {name} ")]
        assert line.endswith(".") and len(line) > 40
    assert {"train", "dist_train", "kinetics/build_annotations"} <= set(
        front.find_tools()
    )


def test_misspelt_tool(capsys):
    assert front.main(["trian"]) == 2
    assert "there is no tool 'trian'; did you mean 'train'" in capsys.readouterr().err


def test_index_is_that_of_the_tables():
    assert (CARRIED / "model-index.yml").read_text() == model_index.make_index()
    folders = model_index.find_folders()
    assert len(folders) == 6
    for folder in folders:
        metafile = (folder / "metafile.yml").read_text(encoding="utf-8")
        assert metafile == model_index.make_metafile(folder), folder.name
        for file in folder.glob("*.py"):
            assert f"Config: configs/{folder.name}/{file.name}" in metafile
