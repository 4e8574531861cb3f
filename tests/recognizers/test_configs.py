"""What is said of configs that cannot be read."""

import pytest
from mmengine.config import Config

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


CIRCLES = {
    "of one": {"c.py": "_base_ = './c.py'\n"},
    "of two": {"c.py": "_base_ = ['d.py']\n", "d.py": "_base_ = 'c.py'\n"},
    "of imports": {
        "c.py": "with read_base():\n    from .d import *\n",
        "d.py": "with read_base():\n    from .c import *\n",
    },
}


@pytest.mark.parametrize("kind", CIRCLES)
def test_configs_that_inherit_themselves(tmp_path, kind):
    imports = "from mmengine.config import read_base\n" if "imports" in kind else ""
    for name, text in CIRCLES[kind].items():
        (tmp_path / name).write_text(imports + text)
    with pytest.raises(UserError, match=r"itself: .*c\.py inherits .*c\.py; change"):
        load_config(str(tmp_path / "c.py"))


def test_a_circle_of_other_files(tmp_path, monkeypatch):
    """MMEngine meets it after many seconds."""

    def follow(file):
        raise RecursionError

    (tmp_path / "c.yaml").write_text("_base_: c.yaml\n")
    monkeypatch.setattr(Config, "fromfile", follow)
    with pytest.raises(UserError, match=r"c\.yaml is nested too deep, or inherits"):
        load_config(str(tmp_path / "c.yaml"))


def test_what_several_inherit_is_no_circle(tmp_path):
    (tmp_path / "base.py").write_text("")
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f"_base_ = 'base.py'\n{name} = 2\n")
    (tmp_path / "c.py").write_text("_base_ = ['one.py', 'two.py']\n")
    assert load_config(str(tmp_path / "c.py")).two == 2


@pytest.mark.parametrize("bad", ["c.py", "base.py", "base.json", "base.yaml"])
def test_a_config_that_is_no_text_is_named(tmp_path, bad):
    base = bad if bad.startswith("base") else "base.py"
    (tmp_path / "base.py").write_text("a = 1\n")
    (tmp_path / "c.py").write_text(f"_base_ = {base!r}\n")
    (tmp_path / bad).write_bytes("# größer\n".encode("latin-1"))
    with pytest.raises(UserError, match=rf"The config .*{bad} is not a text file"):
        load_config(str(tmp_path / "c.py"))


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


def test_a_link_inherits_what_lies_beside_it(tmp_path):
    """And not itself, though it is a link to what inherits it."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "cfg.py").write_text("momentum = 0.9\n")
    (tmp_path / "a/b/cfg.py").write_text("_base_ = '../cfg.py'\n")
    (tmp_path / "a/cfg.py").symlink_to("b/cfg.py")
    assert load_config(str(tmp_path / "a/b/cfg.py")).momentum == 0.9
