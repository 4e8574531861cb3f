import errno
import logging
import os
import re
import subprocess
import sys

import pytest
from mmengine.registry import OPTIM_WRAPPERS, Registry

from polynl_mm.runtime.user_errors import UserError, explain, nearest, user_errors

ROOT = Registry("thing", scope="tests")


@ROOT.register_module()
class Spoon:
    def __init__(self, size=1):
        assert size < 10
        if size < 0:
            raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("cfg", "sentence"),
    [
        ({"type": "Spon"}, "type 'Spon', which no tests::thing has; did .* 'Spoon'"),
        ({"type": "Zzzz"}, "custom_imports"),
        ({"type": "Spoon", "sise": 1}, "Spoon takes no argument 'sise'.*'size'"),
        ({"type": "Spoon", "size": 99}, "Spoon does not accept .*assert .* < 10"),
    ],
)
def test_config_mistakes_are_said(cfg, sentence, capsys):
    with pytest.raises(SystemExit) as left, user_errors():
        ROOT.build(cfg)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1
    import re

    assert re.search(sentence, said), said


def test_bugs_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), user_errors():
        ROOT.build({"type": "Spoon", "size": -1})
    with pytest.raises(ValueError), user_errors():
        int("x")  # a ValueError, but not one that polynl_mm raised
    with pytest.raises(KeyError), user_errors():
        {}["x"]


def test_sentence_behind_another_error_is_found():
    try:
        try:
            raise UserError("the reason")
        except UserError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        assert explain(error) == "the reason"


def test_value_errors_of_the_package_are_sentences():
    from polynl_mm.datasets.annotations import check_annotation_line

    with pytest.raises(SystemExit), user_errors():
        check_annotation_line("a b", "VideoDataset")


def test_debug_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("POLYNL_DEBUG", "1")
    with pytest.raises(SystemExit), user_errors():
        raise UserError("what to do")
    said = capsys.readouterr().err
    assert "Traceback" in said and said.endswith("Error: what to do\n")


def test_ctrl_c_is_no_traceback():
    code = (
        "from polynl_mm.runtime.user_errors import user_errors\n"
        "with user_errors():\n    raise KeyboardInterrupt"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1] == "Interrupted."


def test_nearest_ignores_case():
    assert nearest("polynl3D", ["PolyNL3d", "Other"]) == ["PolyNL3d"]
    assert nearest("zzz", OPTIM_WRAPPERS.module_dict) == []


def test_what_the_system_says_of_a_path_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as raised:
        os.makedirs(tmp_path / "file" / "folder")
    assert re.search(
        r"file/?.* cannot be read or written \(Not a dir", explain(raised.value)
    )
    # As of MMEngine's log, whose file has no name by then.
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "(No space left on device); make room" in explain(error)
    try:
        try:
            raise error
        except OSError:
            raise RuntimeError("unexpected pos")  # noqa: B904
    except RuntimeError as outer:
        assert "make room" in explain(outer)
    assert explain(OSError(errno.EPERM, "of no path")) is None
    assert explain(OSError(errno.ECONNRESET, "reset", "a")) is None


def test_log_on_a_full_disk_is_one_sentence(capsys):
    logger = logging.Logger("full")
    logger.addHandler(logging.FileHandler("/dev/full"))
    before = logging.Handler.handleError
    with user_errors():
        logger.warning("lost")
        logger.warning("lost, too")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "/dev/full cannot be written (No space left" in said[0]
    assert logging.Handler.handleError is before
