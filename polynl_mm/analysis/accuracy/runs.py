"""Running the training tools as a user would, and reading what they leave."""

import contextlib
import json
import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from polynl_mm.installation import home
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError

ROOT = home()
# A training of 10^6 iterations, each recorded, has 200 MB.
MOST_LOG_BYTES = 2**29
MOST_NAMES = 1000
# Whole numbers that say where a record is, and the least that they can be.
COUNTS = {"epoch": 1, "iter": 0, "step": 0}
# Far beyond what 32 bits hold; a picture of such numbers cannot be scaled.
LARGEST = 1e100


def read_scalars(path: str | Path) -> list[dict]:
    """Read the ``scalars.json`` of an MMEngine run.

    Args:
        path (str | Path): The file: one JSON object on each line.

    Returns:
        list[dict]: The objects. A last line that is still being written is left out,
        and so is what is no JSON object.

    Raises:
        UserError: If the file cannot be read, or a record has other things than
            numbers where numbers are.
    """
    records, names = [], set()
    lines = read_text(path, "training log", MOST_LOG_BYTES).splitlines()
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        with contextlib.suppress(json.JSONDecodeError):
            record = parse_json(line, where)
            if isinstance(record, dict):
                _check_record(record, where)
                names.update(record)
                records.append(record)
        if len(names) > MOST_NAMES:
            raise UserError(
                f"{where}: there are more than {MOST_NAMES} different names of what "
                "was measured, which no training records; give a scalars.json of "
                "tools/train.py."
            )
    return records


def is_number(value: object) -> bool:
    """Return whether a value of a record was measured: a number, and no bool.

    Args:
        value (object): From a record.
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_record(record: dict, where: str) -> None:
    for name, value in record.items():
        if not name.isprintable() or len(name) > 200:
            raise UserError(
                f"{where} has the name {name[:40]!r}; names are of at most 200 "
                "printable characters."
            )
        expected = None
        if name in COUNTS:
            least = COUNTS[name]
            if not is_number(value) or not least <= value <= 1e12 or value % 1:
                expected = f"a whole number from {least} to 10^12"
        elif name == "time":
            if not is_number(value) or not 0 <= value <= LARGEST:
                expected = "a number of seconds"
        elif is_number(value):
            # A loss that diverged is nan or inf.
            if abs(value) > LARGEST and value not in (math.inf, -math.inf):
                expected = f"a number of at most {LARGEST:g}"
        elif name in ("loss", "lr") or name.startswith("acc/"):
            expected = "a number"
        if expected:
            shown = f"a {type(value).__name__}"
            if not isinstance(value, (list, dict)):
                shown = repr(value)
                shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
            raise UserError(
                f"{where}: {name} is {shown} where {expected} is expected; give a "
                "scalars.json as tools/train.py writes it, or delete this line."
            )


def find_scalars(run: str | Path) -> Path | None:
    """Find the newest ``scalars.json`` below the work dir of a run.

    Args:
        run (str | Path): The work dir.

    Returns:
        Path | None: The file, if there is one yet.
    """
    found = Path(run).glob("*/vis_data/scalars.json")
    return max(found, key=lambda path: path.parts[-3], default=None)


def accuracy_curve(records: Sequence[Mapping]) -> list[float]:
    """Return the validation accuracies of a run.

    Args:
        records (Sequence[Mapping]): From :func:`read_scalars`.

    Returns:
        list[float]: Top-1 accuracy from 0 to 1, one for each epoch.
    """
    return [record["acc/top1"] for record in records if "acc/top1" in record]


def seconds_per_epoch(records: Sequence[Mapping]) -> float:
    """Return how long a training epoch took, without validation and checkpoints.

    Args:
        records (Sequence[Mapping]): From :func:`read_scalars`.

    Returns:
        float: Seconds, the mean over the epochs; nan if there was no training.
    """
    seconds, seen, epochs = 0.0, 0, 0
    for record in records:
        if "loss" in record:
            # `time` is seconds per iteration since shortly before the last record.
            seconds += record["time"] * (record["step"] - seen)
            seen, epochs = record["step"], max(epochs, record["epoch"])
    return seconds / epochs if epochs else float("nan")


def run_tool(command: Sequence[str], log: Path, watch=lambda: None) -> None:
    """Run one of the tools, with its output in a file.

    Args:
        command (Sequence[str]): Program and arguments.
        log (Path): Where the output goes.
        watch (Callable): Called every half second while the tool runs.

    Raises:
        UserError: If the tool fails; its last lines are printed first.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHON": sys.executable},
        )
        with ended_on_error(process):
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                watch()
    if process.returncode:
        with open(log, encoding="utf-8", errors="replace") as lines:
            print("".join(deque(lines, 30)), file=sys.stderr)
        raise UserError(
            f"{Path(command[1]).name} ended with status {process.returncode}; its "
            f"last lines are above, all of them in {log}."
        )


@contextlib.contextmanager
def ended_on_error(process: subprocess.Popen) -> Iterator[None]:
    """Leave no training behind when this process is interrupted or fails.

    Args:
        process (subprocess.Popen): What to end.

    Yields:
        None: Nothing.
    """
    try:
        yield
    except BaseException:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


class EpochReporter:
    """Prints a line for each epoch that a run has finished.

    Args:
        run (Path): The work dir of the run.
        title (str): What to call it.
        epochs (int): How many epochs it will have.
    """

    def __init__(self, run: Path, title: str, epochs: int):
        self.run, self.title, self.epochs = run, title, epochs
        self.reported = 0

    def __call__(self) -> None:
        """Print what is new since the last call."""
        path = find_scalars(self.run)
        curve = accuracy_curve(read_scalars(path)) if path else []
        for epoch in range(self.reported, len(curve)):
            print(
                f"  {self.title}, epoch {epoch + 1} of {self.epochs}: "
                f"validation top-1 {curve[epoch]:.1%}",
                flush=True,
            )
        self.reported = len(curve)
