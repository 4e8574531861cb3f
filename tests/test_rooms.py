"""The rooms of the package: what each is for, and which way the arrows run."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "polynl_mm"
# Each room, and those that its files may import from; itself and the ground go
# without saying. A room within a room is its own where it is named.
GROUND = (
    *("user_errors", "atomic_files", "file_names", "text_files", "number_options"),
    *("installation", "tool_start"),
)
ROOMS = {
    "ops": (),
    "plugins": ("ops",),
    "stack": (),
    "datasets": ("stack",),
    "datasets.decoding": ("stack", "datasets"),
    "datasets.preparation": ("stack", "datasets", "datasets.decoding"),
    "clip_parallel": ("ops", "plugins", "stack", "datasets", "datasets.decoding"),
    "backbones": ("ops", "plugins", "stack", "datasets", "clip_parallel"),
    "recognizers": (
        *("ops", "plugins", "stack", "datasets", "datasets.decoding", "clip_parallel"),
    ),
    "convert": ("plugins", "stack", "datasets", "backbones", "recognizers"),
    "deployment": ("ops", "plugins", "stack", "datasets", "backbones", "recognizers"),
}
BELOW_ANALYSIS = (*ROOMS,)
ROOMS |= {
    "analysis": BELOW_ANALYSIS,
    "analysis.accuracy": (*BELOW_ANALYSIS, "analysis"),
    "analysis.influence": (*BELOW_ANALYSIS, "analysis"),
    "analysis.cost": (*BELOW_ANALYSIS, "analysis", "analysis.accuracy"),
    "analysis.report": (
        *BELOW_ANALYSIS,
        "analysis",
        "analysis.accuracy",
        "analysis.cost",
    ),
}
ROOMS["experiments"] = (*ROOMS,)
ROOMS["commands"] = (*ROOMS,)
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """Return the innermost room that a module stands in; None for the ground."""
    inside = [room for room in ROOMS if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default=None)


def imports_of(file: Path) -> set[str]:
    """Return the modules of the package that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    prefix = "polynl_mm."
    return {name.removeprefix(prefix) for name in found if name.startswith(prefix)}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_arrows_run_one_way(file):
    room = room_of(name_of(file))
    if name_of(file) in ("", "__main__", "registered"):
        return  # the package itself, which registers what is in the rooms
    for target in imports_of(file):
        target_room = room_of(target)
        if target == "register":  # of the package itself, by what tools start
            assert room in ("commands", "experiments")
            continue
        if target_room in (None, room):
            assert target_room == room or target.split(".")[0] in GROUND, target
            continue
        if file.name == "__init__.py" and target_room.startswith(f"{room}."):
            continue  # the face of a room shows what is in it
        assert room is not None, f"the ground imports {target}"
        assert target_room in ROOMS[room], f"{room} imports {target}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_first_line_says_why(file):
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert text and len(text.splitlines()[0]) > 20
    if room_of(name_of(file)) == "stack":
        assert "mends" in text.lower(), f"{file.name} does not say what it mends"


def test_ops_need_torch_alone():
    allowed = {
        "torch",
        "math",
        "functools",
        "inspect",
        "itertools",
        "contextlib",
        "typing",
    }
    allowed |= {"collections", "polynl_mm", "__future__"}
    for file in (PACKAGE / "ops").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.split(".")[0] in allowed, f"{file.name} imports {name}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_packages(room):
    assert (PACKAGE / room.replace(".", "/") / "__init__.py").is_file()


def test_every_module_has_a_room():
    strangers = [
        name_of(file)
        for file in FILES
        if room_of(name_of(file)) is None
        and name_of(file) not in ("", "__main__", "registered", *GROUND)
    ]
    assert not strangers
