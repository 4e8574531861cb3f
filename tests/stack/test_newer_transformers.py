"""A transformers that VindLU does not know stops VindLU alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD = """
import polynl_mm
polynl_mm.register()
from mmengine.registry import MODELS, init_default_scope
init_default_scope("mmaction")
from mmaction.utils import register_all_modules
register_all_modules(init_default_scope=False)
print(type(MODELS.build(dict(type="ResNetTSM", depth=18, pretrained=None))).__name__)
MODELS.build(dict(type="VindLUVQA"))
"""


@pytest.fixture
def site(tmp_path) -> Path:
    """A folder with a transformers 5 from which nearly all is gone."""
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '5.17.0'\n")
    information = tmp_path / "transformers-5.17.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: transformers\nVersion: 5.17.0\n"
    )
    return tmp_path


def test_other_models_are_built_and_this_one_says_why(site):
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(site), str(REPO)])),
        capture_output=True,
        text=True,
    )
    assert "ResNetTSM" in done.stdout, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "VindLUVQA cannot be built" in said
    assert "5.17.0" in said and "below 5" in said
