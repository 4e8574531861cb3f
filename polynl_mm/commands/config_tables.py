"""Tables in the READMEs of configs/, as counted and published: ``config_tables.py``."""

import argparse
from collections.abc import Sequence

from polynl_mm import register
from polynl_mm.experiments.page_tables import write_table
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import UserError, user_errors

COMMAND = "python tools/analysis_tools/config_tables.py"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="such as i3d; default all"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, say what is out of date"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the tables of the READMEs, or check them.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.experiments.config_tables import (
            find_folders,
            format_page,
            is_current,
            quiet,
        )

        with quiet():
            require_mmaction2()
        folders = find_folders(args.folders)
        if args.check:
            stale = [folder for folder in folders if not is_current(folder)]
            if stale:
                names = " ".join(folder.name for folder in stale)
                raise UserError(f"READMEs out of date: {names}; run {COMMAND} {names}.")
            print(f"{len(folders)} READMEs are up to date.")
            return
        for folder in folders:
            write_table(format_page(folder), folder / "README.md")
        print(f"Wrote the tables of {', '.join(f'configs/{f.name}' for f in folders)}.")
