"""Every option of every tool is used by a test: none may be dead."""

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def options() -> list[tuple[str, str]]:
    """Return what the tools declare: an option's names, and the file that has it."""
    found = set()
    for folder in ("tools", "polynl_mm"):
        for file in (REPO / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                if getattr(node.func, "attr", "") != "add_argument":
                    continue
                names = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if any(str(name).startswith("-") for name in names):
                    found.add((" ".join(names), file.relative_to(REPO).as_posix()))
    return sorted(found)


@pytest.fixture(scope="module")
def tests() -> str:
    texts = [
        path.read_text(encoding="utf-8")
        for path in (REPO / "tests").rglob("*.py")
        if path != Path(__file__).resolve()
    ]
    return "\n".join(texts)


@pytest.mark.parametrize(("option", "file"), options())
def test_option_is_tried(tests, option, file):
    forms = [form for n in option.split() for form in (f'"{n}"', f" {n} ", f'"{n} ')]
    assert any(form in tests for form in forms), f"{option} of {file} has no test"
