"""Every option of every tool has a test, or a script that gives it."""

import ast
import re
from pathlib import Path

from conftest import REPO

from polynl_mm.stack import TRUST_OPTION

NAMES = {"TRUST_OPTION": TRUST_OPTION}
# Who has the options that several tools share.
USERS = {
    "polynl_mm/recognizers/command_line.py": "train",
    "polynl_mm/commands/clip_options.py": "influence",
}


def find_options(source: str) -> set[str]:
    """Return the long options that a file's calls of ``add_argument`` make.

    ``f"--{name}"`` in a loop over a dict or a tuple of strings gives one for each.
    """
    options, loops = set(), {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.For):
            strings = _strings_looped_over(node)
            loops.update(dict.fromkeys(ast.walk(node), strings))
        if not isinstance(node, ast.Call):
            continue
        if getattr(node.func, "attr", None) != "add_argument":
            continue
        for argument in node.args:
            options.update(_values(argument, loops.get(node, [])))
    return {option for option in options if option.startswith("--")}


def _strings_looped_over(loop: ast.For) -> list[str]:
    over = loop.iter
    if isinstance(over, ast.Call) and isinstance(over.func, ast.Attribute):
        over = over.func.value  # of {...}.items()
    items = over.keys if isinstance(over, ast.Dict) else getattr(over, "elts", [])
    return [item.value for item in items if isinstance(item, ast.Constant)]


def _values(argument: ast.expr, looped: list[str]) -> list[str]:
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    if isinstance(argument, ast.Name):
        return [NAMES[argument.id]]
    assert isinstance(argument, ast.JoinedStr) and looped, ast.unparse(argument)
    assert argument.values[0].value == "--" and len(argument.values) == 2
    return [f"--{name}" for name in looped]


def files_with(folder: str, *endings: str) -> list[Path]:
    found = [file for end in endings for file in (REPO / folder).rglob(f"*{end}")]
    return sorted(found)


def all_options() -> dict[str, set[str]]:
    """Return the options by the file, below the repository, that adds them."""
    options = {}
    for file in files_with("tools", ".py") + files_with("polynl_mm", ".py"):
        if found := find_options(file.read_text(encoding="utf-8")):
            options[file.relative_to(REPO).as_posix()] = found
    return options


def test_options_are_found():
    found = find_options(
        "p.add_argument('-j', '--jobs')\n"
        "for name, text in {'size': 'a', 'gap': 'b'}.items():\n"
        "    p.add_argument(f'--{name}')\n"
        "p.add_argument(TRUST_OPTION)\n"
        "p.add_argument('config')\n"
    )
    assert found == {"--jobs", "--size", "--gap", TRUST_OPTION}
    options = all_options()
    assert "--resume" in options["polynl_mm/commands/train.py"]
    assert "--colours" in options["polynl_mm/datasets/bookends.py"]
    assert len(options) > 15 and sum(map(len, options.values())) > 90


def test_every_option_is_given_somewhere():
    """In a test or a script that names the tool, or the module behind it."""
    files = files_with("tests", ".py", ".sh") + files_with("tools", ".sh")
    own = Path(__file__).resolve()
    texts = [x.read_text(encoding="utf-8") for x in files if x != own]
    missing = []
    for file, options in all_options().items():
        name = USERS.get(file, Path(file).stem)
        near = [x for x in texts if re.search(rf"(?<![a-zA-Z]){name}(?![a-zA-Z])", x)]
        given = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", "\n".join(near)))
        missing += [f"{file}: {option}" for option in sorted(options - given)]
    assert not missing, f"options that no test and no script gives: {missing}"
