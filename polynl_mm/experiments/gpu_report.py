"""What a GPU says of the package: its tests, the blocks' speed, networks, quickstart.

``bash tests/gpu.sh`` runs it. Each part is a process of its own with a limit of its
own: where one fails, the others go on, and the report says what failed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from polynl_mm.analysis.accuracy.runs import ROOT
from polynl_mm.atomic_files import expect_outputs, renamed_when_complete, write_json
from polynl_mm.experiments.page_tables import check_page, write_table
from polynl_mm.number_options import seconds
from polynl_mm.user_errors import UserError, user_errors

# Seconds that each may take, beside what those before it left of theirs; together eight
# minutes on a GPU. Without one, on a busy machine, only what hangs is to be ended.
PARTS = {"machine": 25, "tests": 130, "benchmark": 95, "quickstart": 115, "models": 115}
RESULTS = ("gpu.json", "gpu.md")
FAST_PARTS = dict.fromkeys(PARTS, 600)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tests/gpu.sh``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        prog="tests/gpu.sh", description="Test and measure the package on a GPU."
    )
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--fast", action="store_true", help="a little of everything, to try the script")
    add("--out", type=Path, default=ROOT / "work_dirs/gpu", help="where results go")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    add("--page", type=Path, help="write the tables into this page, too")
    # How a part is started in a process of its own.
    add("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    add("--seconds", type=seconds, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, and write ``gpu.json``, ``gpu.md`` and the plots.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        int: 0, or 1 if a part failed.
    """
    args = parse_args(argv)
    with user_errors():
        if args.part:
            return _run_part(args)
        results = {f"the {name} of --out": args.out / name for name in RESULTS}
        expect_outputs({**results, "--page": args.page}, {"--out": args.out})
        if args.page:
            check_page(args.page, "gpu")
        if args.device == "cuda":
            _expect_gpu()
        args.out.mkdir(parents=True, exist_ok=True)
        report = {"device": args.device, "fast": args.fast, "parts": {}}
        left = 0.0
        for name in args.parts:
            left += (FAST_PARTS if args.fast else PARTS)[name]
            report["parts"][name] = _try_part(name, args, left)
            left -= report["parts"][name]["seconds"]
            # After each part, so that a machine that is taken away leaves results.
            write_json(args.out / "gpu.json", report)
        from polynl_mm.experiments.gpu_tables import format_report

        with renamed_when_complete(args.out / "gpu.md") as partial:
            partial.write_text(f"{format_report(report)}\n", encoding="utf-8")
        if args.page:
            write_table(format_report(report), args.page, "gpu")
        failed = [name for name, part in report["parts"].items() if part["error"]]
        print(f"Written: {args.out}/gpu.json, gpu.md and plots.")
        for name in failed:
            print(f"{name} failed: {report['parts'][name]['error'][-1500:]}")
        return int(bool(failed))


def _expect_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "torch sees no CUDA GPU on this machine; --device cpu --fast tries the "
            "script without one."
        )


def _try_part(name: str, args: argparse.Namespace, limit: float) -> dict:
    command = [sys.executable, "-m", "polynl_mm.experiments.gpu_report"]
    command += ["--device", args.device, "--out", str(args.out), "--part", name]
    command += ["--seconds", f"{limit:.0f}"]
    command += ["--fast"] if args.fast else []
    result = args.out / f"{name}.part.json"
    result.unlink(missing_ok=True)
    print(f"== {name}", flush=True)
    began, error = time.perf_counter(), ""
    # Reached by each part, and by the tools that it starts, from any folder.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    log = args.out / f"{name}.part.log"
    with open(log, "w", encoding="utf-8") as output:
        try:
            done = subprocess.run(
                command,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit,
                cwd=ROOT,
            )
            if done.returncode:
                error = f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            error = f"took more than {limit:g} seconds"
    text = log.read_text(encoding="utf-8", errors="replace")
    found = json.loads(result.read_text()) if result.is_file() else {}
    result.unlink(missing_ok=True)
    if error:
        error = f"{error}\n{text[-3000:]}"
    else:
        log.unlink()
    seconds = round(time.perf_counter() - began, 1)
    print(f"   {seconds} s{', failed' if error else ''}", flush=True)
    return {"seconds": seconds, "error": error, **found}


def _run_part(args: argparse.Namespace) -> int:
    from polynl_mm import register
    from polynl_mm.experiments import gpu_parts

    register()
    # A part that is cut off leaves what it has saved by then.
    result = args.out / f"{args.part}.part.json"
    part = getattr(gpu_parts, f"run_{args.part}")
    return part(args, lambda found: write_json(result, found)) or 0


if __name__ == "__main__":
    sys.exit(main())
