"""Every Python sample of the documentation runs, or says why it does not."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import HOOKS, MODELS, TRANSFORMS, DefaultScope

from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack import require_mmaction2

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / "README.md", REPO / "data/README.md", REPO / "configs/README.md"]
PAGES += sorted((REPO / "docs").glob("*.md"))
SAMPLE = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL
)


def samples():
    for page in PAGES:
        for number, found in enumerate(SAMPLE.finditer(page.read_text("utf-8"))):
            name = f"{page.relative_to(REPO).as_posix()}-{number}"
            yield pytest.param(page, found["code"], found["why"], id=name)


def build(node: ast.AST) -> None:
    """Build what a dict of a page describes: a plugin, a step of a pipeline, a hook."""
    described = eval(compile(ast.Expression(node), "<docs>", "eval"))
    kind = described["type"]
    if kind in MODELS.module_dict:
        described.setdefault("in_channels", 512)
    for registry in (MODELS, HOOKS, TRANSFORMS):
        if kind in registry.module_dict:
            registry.build(described)
            return
    from mmaction.registry import TRANSFORMS as MMACTION_TRANSFORMS

    MMACTION_TRANSFORMS.build(described)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """Where the modules of docs/extend.md are saved, as the page says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slowonly_r50-polynl_8xb16-8x8x1-256e_kinetics400-rgb.py").write_text(
        "_base_ = ['polynl_mm::slowonly/"
        "slowonly_r50-polynl_8xb16-8x8x1-256e_kinetics400-rgb.py']\n"
    )
    extend = SAMPLE.search((REPO / "docs/extend.md").read_text("utf-8"))
    (tmp_path / "mean_gate.py").write_text(extend["code"])
    yield
    sys.modules.pop("mean_gate", None)
    MODELS.module_dict.pop("MeanGate3d", None)


@pytest.mark.parametrize(("page", "code", "why"), samples())
def test_sample_runs(page, code, why, tmp_path):
    if why:
        pytest.skip(why)
    tree = ast.parse(code)
    require_mmaction2()
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    if all(isinstance(node, ast.Expr) for node in tree.body):
        for node in tree.body:
            with DefaultScope.overwrite_default_scope("mmaction"):
                build(node.value)
    elif all(isinstance(node, ast.Assign) for node in tree.body):
        (tmp_path / "sample.py").write_text(code)
        cfg = load_config("sample.py")
        backbone = (cfg.get("model") or {}).get("backbone")
        if backbone and "mmdet" not in str(backbone.get("of")):
            cfg.model.backbone.pretrained = None
            MODELS.build(dict(cfg.model.backbone, _scope_="mmaction"))
    else:
        exec(compile(tree, str(page), "exec"), {"__name__": "sample"})


def test_notebook_runs():
    notebook = json.loads((REPO / "docs" / "tour.ipynb").read_text("utf-8"))
    names = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), "outputs are not kept: they go stale"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "tour.ipynb", "exec"), names)


def test_pages_name_files_that_are_there():
    """Paths of the repository in code spans and commands exist."""
    path = re.compile(r"(?<![\w/.-])((?:tools|configs|docs|tests|data)/[\w./-]+\.\w+)")
    lost = set()
    for page in PAGES:
        for name in path.findall(page.read_text("utf-8")):
            made = name.startswith(("data/", "docs/images/benchmark"))
            if not made and not (REPO / name).exists():
                lost.add(f"{page.name}: {name}")
    assert not lost


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or sys.version_info < (3, 10),
    reason="mkdocs is not installed (requirements/docs.txt)",
)
def test_readme_leads_to_every_page():
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    pages = [f"docs/{page.name}" for page in (REPO / "docs").glob("*.md")]
    assert [page for page in pages if f"]({page})" not in readme] == []


def test_site_builds_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--site-dir", tmp_path / "site"],
        cwd=REPO,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "Poly-NL" in first
    plugins = (tmp_path / "site" / "reference" / "plugins.html").read_text("utf-8")
    assert "PolyNL3d" in plugins
