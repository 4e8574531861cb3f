"""Configs of installed packages, found without pkg_resources and without metafiles."""

import subprocess
import sys

import pytest
from mmengine.config import Config

from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack import package_configs
from polynl_mm.user_errors import UserError

OURS = "polynl_mm::slowonly/slowonly_r50-polynl_8xb16-8x8x1-256e_kinetics400-rgb.py"
THEIRS = (
    "mmaction::recognition/slowonly/slowonly_r50_8xb16-4x16x1-256e_kinetics400-rgb.py"
)
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pkg_resources", "setuptools"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import polynl_mm
from mmengine.config import Config
for config in sys.argv[1:]:
    print(Config.fromfile(config).model.backbone.type)
"""


def test_without_setuptools(tmp_path):
    (tmp_path / "ours.py").write_text(f"_base_ = ['{OURS}']\n")
    (tmp_path / "theirs.py").write_text(f"_base_ = ['{THEIRS}']\n")
    files = [str(tmp_path / f"{name}.py") for name in ("ours", "theirs")]
    command = [sys.executable, "-c", BLOCKED, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["WithPlugins", "ResNet3dSlowOnly"]


def test_metafiles_are_not_read(monkeypatch):
    from mmengine.config import utils

    monkeypatch.setattr(utils, "load", lambda _: pytest.fail("a metafile is read"))
    assert load_config(OURS).model.backbone.plugins
    assert load_config(THEIRS).model.backbone.depth == 50


def test_what_is_not_there_is_named(tmp_path):
    config = tmp_path / "c.py"
    config.write_text("_base_ = ['polynl_mm::slowonly/nosuch.py']\n")
    with pytest.raises(UserError, match="nosuch"):
        load_config(str(config))
    with pytest.raises(UserError, match="did you mean polynl_mm::slowonly/slow"):
        load_config(OURS.replace("polynl_8xb16", "polynll_8xb16"))
    with pytest.raises(UserError, match="nopackage, which is not installed"):
        load_config("nopackage::a/b.py")


def test_installing_twice_changes_nothing():
    before = Config._get_cfg_path
    package_configs.find_configs_by_name()
    assert Config._get_cfg_path is before
