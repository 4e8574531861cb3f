"""What goes into a source distribution."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


def test_source_distribution_has_what_setup_reads(tmp_path):
    pytest.importorskip("setuptools")
    checkout = tmp_path / "checkout"
    for folder in ("polynl_mm", "requirements"):
        shutil.copytree(REPO / folder, checkout / folder)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        shutil.copy(REPO / name, checkout)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info"],
        cwd=checkout,
        check=True,
        capture_output=True,
    )
    sources = (checkout / "polynl_mm.egg-info" / "SOURCES.txt").read_text().split("\n")
    read = {path.relative_to(REPO).as_posix() for path in REPO.glob("requirements/*")}
    assert read | {"README.md", "LICENSE", "polynl_mm/plugins/base.py"} <= set(sources)
    metadata = (checkout / "polynl_mm.egg-info" / "PKG-INFO").read_text()
    assert "\nAuthor: polynl_mm developers\n" in metadata
