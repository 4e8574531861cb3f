"""What is said of configs that cannot be read."""

import pytest

from polynl_mm.recognizers.configs import load_config
from polynl_mm.user_errors import UserError

IMPORTS = "custom_imports = dict(imports=[{!r}], allow_failed_imports=False)\n"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("c.py", "a = 1\nb = nothing\n", r"c\.py, line 2: NameError: name 'nothing'"),
        ("c.py", "a = {}\nb = a['b']\n", r"c\.py, line 2: KeyError: 'b'"),
        ("c.txt", "a = 1\n", r"c\.txt is no config file.* end in \.py"),
        ("c.py", IMPORTS.format("no_such_module"), "custom_imports failed .*'no_such"),
        ("c.py", IMPORTS.format("polynl_mm.nothing"), "failed .*'polynl_mm.nothing"),
    ],
)
def test_config_that_cannot_be_read(tmp_path, name, text, sentence):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        load_config(str(file))
    assert "sys.path" not in str(caught.value) and "\n" not in str(caught.value)


def test_mistake_in_an_inherited_config_names_that_file(tmp_path):
    (tmp_path / "base.py").write_text("\nb = nothing\n")
    (tmp_path / "c.py").write_text("_base_ = 'base.py'\n")
    with pytest.raises(UserError, match=r"base\.py, line 2: NameError"):
        load_config(str(tmp_path / "c.py"))


def test_bug_in_an_imported_module_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "faulty_for_test.py").write_text("1 / 0\n")
    (tmp_path / "c.py").write_text(IMPORTS.format("faulty_for_test"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        load_config(str(tmp_path / "c.py"))
