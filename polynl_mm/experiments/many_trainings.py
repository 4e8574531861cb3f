"""Many short trainings, several at once, each tested and then summed up in one file."""

import contextlib
import os
import runpy
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from polynl_mm.analysis.accuracy.dumped_results import DumpedResults, read_results
from polynl_mm.atomic_files import write_json
from polynl_mm.datasets.isolated_workers import run_isolated
from polynl_mm.installation import TOOLS
from polynl_mm.stack import require_mmaction2
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError

# A day: one that hangs does not keep the others from an end.
SECONDS_FOR_A_TRAINING = 24 * 3600.0


@dataclass(frozen=True)
class Training:
    """One training of a study.

    Attributes:
        name (str): Of its files.
        config (str): Its config.
        seed (int): Of its weights, its batches and its augmentation.
        options (dict[str, str]): What of the config is set, as ``--cfg-options`` does.
        about (dict[str, str]): What the study calls it; stands in its result.
    """

    name: str
    config: str
    seed: int
    options: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    def options_line(self) -> list[str]:
        """Return the arguments that say the options."""
        said = [f"{key}={value}" for key, value in self.options.items()]
        return ["--cfg-options", *said] if said else []


class _Bar(tqdm):
    """Has no thread: a training that is forked while one holds a lock never gets it."""

    monitor_interval = 0


def train_all(
    trainings: Sequence[Training],
    folder: Path,
    jobs: int,
    sum_up: Callable[[DumpedResults], dict],
) -> list[dict]:
    """Train and test those that have no result yet, and return all results.

    Each runs in a process of its own, of one thread, forked from this one so that
    torch and MMAction2 are imported once. Its checkpoint goes when it has been tested.

    Args:
        trainings (Sequence[Training]): What to train.
        folder (Path): ``results/NAME.json`` and ``logs/NAME.log`` go there.
        jobs (int): How many at once.
        sum_up (Callable): Makes of a test's predictions what the result keeps.

    Returns:
        list[dict]: Of each training ``about``, ``seed``, ``config``, ``options``,
        ``seconds``, ``cpu_seconds``, ``torch``, and what ``sum_up`` returned.

    Raises:
        UserError: If some failed; the others have been done.
    """
    for name in ("results", "logs", "runs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    waiting = [t for t in trainings if not _result_file(folder, t).is_file()]
    torch.set_num_threads(1)
    require_mmaction2()
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)  # imports what all of them need
    failed = []
    tasks = [(training, folder, sum_up) for training in waiting]
    # A fork for each, of a process whose thread pools have not worked yet.
    done = run_isolated(_train_one, tasks, jobs, SECONDS_FOR_A_TRAINING, True)
    for outcome in _Bar(done, total=len(tasks), unit="training"):
        name = outcome.item[0].name
        error = outcome.failure or outcome.value
        if error:
            failed.append(name)
            _Bar.write(f"{name}: {error}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(trainings)} trainings failed, {failed[0]} for one; "
            f"{folder / 'logs'} says why. Run it again to make the missing ones."
        )
    return read_finished(trainings, folder)


def read_finished(trainings: Sequence[Training], folder: Path) -> list[dict]:
    """Read the results of the trainings that have been done.

    Args:
        trainings (Sequence[Training]): Those of a study.
        folder (Path): As for :func:`train_all`.

    Returns:
        list[dict]: Those that there are, in this order.
    """
    files = [_result_file(folder, training) for training in trainings]
    return [
        parse_json(read_text(file, "result"), str(file))
        for file in files
        if file.is_file()
    ]


def _result_file(folder: Path, training: Training) -> Path:
    return folder / "results" / f"{training.name}.json"


def _train_one(task: tuple) -> str:
    """Return why the training failed, or nothing."""
    training, folder, sum_up = task
    run = folder / "runs" / training.name
    shutil.rmtree(run, ignore_errors=True)  # of one that was cut off
    run.mkdir()
    with open(folder / "logs" / f"{training.name}.log", "w") as log:
        # The loggers keep the streams that they find.
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                result = _train_and_test(training, run)
        except (Exception, SystemExit) as error:
            traceback.print_exc(file=log)
            return f"{type(error).__name__}: {error}"
    shutil.rmtree(run)
    dump, seconds, cpu_seconds = result
    write_json(
        _result_file(folder, training),
        {
            **asdict(training),
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_seconds, 1),
            "torch": torch.__version__,
            **sum_up(dump),
        },
    )
    return ""


def _train_and_test(
    training: Training, run: Path
) -> tuple[DumpedResults, float, float]:
    began, cpu_began = time.perf_counter(), time.process_time()
    work_dir = ["--work-dir", str(run)]
    options = training.options_line()
    line = [training.config, *work_dir, "--seed", str(training.seed)]
    # Tested once, after the last epoch: nothing is chosen by what is tested.
    _run_tool("train.py", *line, "--no-validate", *options)
    checkpoint = Path((run / "last_checkpoint").read_text().strip())
    dump = run / "predictions.pkl"
    line = [training.config, str(checkpoint), *work_dir, "--dump", str(dump)]
    _run_tool("test.py", *line, *options)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return read_results(str(dump)), seconds, cpu_seconds


def _run_tool(name: str, *arguments: str) -> None:
    """Run a tool as a command line would, but in this process."""
    sys.argv, sys.path[:0] = [name, *arguments], [str(TOOLS)]
    runpy.run_path(str(TOOLS / name), run_name="__main__")
    sys.stdout.flush()
