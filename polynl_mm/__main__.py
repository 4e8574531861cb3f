"""One front for all tools: ``python -m polynl_mm TOOL [its arguments]``."""

import ast
import os
import runpy
import sys
from pathlib import Path

from polynl_mm.installation import TOOLS
from polynl_mm.user_errors import did_you_mean

# Parts of others: what is sourced, the launcher, and a first import.
PARTS = {"checked_stack", "launch", "launch_env", "setup_env"}


def find_tools() -> dict[str, Path]:
    """Return the tools by the names that they are called by.

    Returns:
        dict[str, Path]: A tool's name is that of its file; of one that prepares a
        certain data set, with that before it (``kinetics/build_annotations``).
    """
    files = [f for f in TOOLS.rglob("*") if f.suffix in (".py", ".sh")]
    files = [f for f in files if f.stem not in PARTS]
    # A script that has a Python file of its name makes an environment for it, which an
    # installed package has.
    python = {f.with_suffix("") for f in files if f.suffix == ".py"}
    files = [f for f in files if f.suffix == ".py" or f.with_suffix("") not in python]
    return {
        f"{f.parent.name}/{f.stem}" if f.parents[1].name == "data" else f.stem: f
        for f in sorted(files)
    }


def describe(tool: Path) -> str:
    """Return the first line that a tool says of itself.

    Args:
        tool (Path): Its file.

    Returns:
        str: One line.
    """
    text = tool.read_text(encoding="utf-8")
    if tool.suffix == ".py":
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    else:
        first = text.splitlines()[1].removeprefix("# ")
    return first.partition(":")[0].rstrip(".") + "."


def main(argv: list[str] | None = None) -> int:
    """Run a tool in this Python.

    Args:
        argv (list[str] | None): The tool's name and its arguments; default those of
            the process.

    Returns:
        int: 2 where there is no such tool; else the tool ends the process.
    """
    argv = sys.argv[1:] if argv is None else argv
    tools = find_tools()
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m polynl_mm TOOL [arguments of the tool]\n\ntools:")
        for name, tool in tools.items():
            print(f"  {name:28}{describe(tool)}")
        print("\nTOOL --help says what each takes.")
        return 0
    name, *arguments = argv
    if name not in tools:
        hint = did_you_mean(name, tools) or "; see python -m polynl_mm --help."
        print(f"Error: there is no tool {name!r}{hint}", file=sys.stderr)
        return 2
    tool = tools[name].resolve()
    sys.stdout.flush()
    if tool.suffix == ".sh":
        os.environ["PYTHON"] = sys.executable
        os.execvp("bash", ["bash", str(tool), *arguments])
    sys.argv = [f"polynl_mm {name}", *arguments]
    sys.path.insert(0, str(tool.parent))
    runpy.run_path(str(tool), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
