"""Curves of finished or running trainings, from the records that MMEngine keeps."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polynl_mm.analysis.accuracy.runs import is_number, read_scalars
from polynl_mm.analysis.colours import OURS, distinct_styles
from polynl_mm.analysis.line_labels import Label, label_lines
from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.user_errors import UserError, did_you_mean

USUAL_KEYS = ("loss", "acc/top1", "lr")
# What says where a record is, not what was measured.
PLACES = ("epoch", "iter", "step")
# More, or longer ones, need a legend.
MOST_LABELS = 8
LONGEST_LABEL = 28
# Wider pictures cannot be drawn.
MOST_PANELS = 20
TITLES = {
    "loss": "training loss",
    "lr": "learning rate",
    "acc/top1": "validation top-1 (%)",
    "acc/top5": "validation top-5 (%)",
    "acc/mean1": "validation mean class accuracy (%)",
}


@dataclass
class TrainingLog:
    """What was measured during a training.

    Attributes:
        title (str): What to call it.
        records (list[dict]): Of training and validation, in their order.
        by_epoch (bool): Whether validations are counted in epochs.
        epoch_length (float | None): Iterations of an epoch, where there are epochs.
    """

    title: str
    records: list[dict]
    by_epoch: bool = field(init=False)
    epoch_length: float | None = field(init=False)

    def __post_init__(self):
        epochs = [r for r in self.records if "loss" in r and "epoch" in r]
        self.by_epoch = bool(epochs)
        last = {}
        for record in epochs:
            last[record["epoch"]] = max(last.get(record["epoch"], 0), record["step"])
        # The last epoch may be cut short; logging may leave out an epoch's last steps.
        whole = {epoch: step for epoch, step in last.items() if epoch < max(last)}
        ends = whole or last
        self.epoch_length = max((s / e for e, s in ends.items()), default=None)

    def measured(self) -> list[str]:
        """Return the names of what was measured."""
        found = dict.fromkeys(
            key
            for record in self.records
            for key, value in record.items()
            if is_number(value)
        )
        return [key for key in found if key not in PLACES]

    def curve(self, key: str, over: str) -> tuple[list[float], list[float]]:
        """Return a curve of the training.

        Args:
            key (str): What was measured, such as ``loss`` or ``acc/top1``.
            over (str): ``"epoch"`` or ``"iter"``.

        Returns:
            tuple[list[float], list[float]]: Places and values.
        """
        found = [r for r in self.records if is_number(r.get(key))]
        return [self._place(r, over) for r in found], [r[key] for r in found]

    def _place(self, record: dict, over: str) -> float:
        in_epochs = self.by_epoch and "loss" not in record
        if over == "epoch":
            return record["step"] if in_epochs else record["step"] / self.epoch_length
        return record["step"] * (self.epoch_length if in_epochs else 1)


def read_training(path: str | Path, title: str | None = None) -> TrainingLog:
    """Read the records of a training.

    Args:
        path (str | Path): A work dir, or a ``scalars.json`` in it. Of a work dir with
            a resumed training, all parts are joined.
        title (str | None): What to call it; by default its path.

    Returns:
        TrainingLog: The records.

    Raises:
        UserError: If there are none, or they cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*/vis_data/scalars.json"))
        files = files or sorted(path.glob("vis_data/scalars.json"))
        files = files or sorted(path.glob("scalars.json"))
        if not files:
            raise UserError(
                f"{path} has no <time>/vis_data/scalars.json; give the work dir of a "
                "training (--work-dir of tools/train.py)."
            )
    elif path.exists():
        files = [path]
    else:
        raise UserError(f"The training {path} does not exist; give its work dir.")
    records: list[dict] = []
    for file in files:
        found = [record for record in read_scalars(file) if "step" in record]
        records = _joined(records, found)
    if not records:
        raise UserError(
            f"{path} records no training; give a work dir of tools/train.py, or the "
            "scalars.json in it."
        )
    return TrainingLog(title or str(path), records)


def find_keys(logs: Sequence[TrainingLog], wanted: Sequence[str] | None) -> list[str]:
    """Return what to draw.

    Args:
        logs (Sequence[TrainingLog]): The trainings.
        wanted (Sequence[str] | None): What the user asks for; by default loss, top-1
            and learning rate, as far as they were recorded.

    Returns:
        list[str]: Keys that at least one training has.

    Raises:
        UserError: If none has a key, or more are asked for than fit in a picture.
    """
    known = list(dict.fromkeys(key for log in logs for key in log.measured()))
    if wanted is None:
        wanted = [key for key in USUAL_KEYS if key in known] or known[:1]
    wanted = list(dict.fromkeys(wanted))
    if len(wanted) > MOST_PANELS:
        raise UserError(
            f"--keys gives {len(wanted)} keys; at most {MOST_PANELS} fit in a picture, "
            "so draw several."
        )
    for key in wanted:
        if key not in known:
            shown = ", ".join(known[:MOST_PANELS])
            shown += ", ..." if len(known) > MOST_PANELS else ""
            hint = did_you_mean(key, known) or f"; recorded are {shown}"
            raise UserError(f"--keys: no training has recorded {key!r}{hint}")
    if not wanted:
        raise UserError(
            f"{', '.join(log.title for log in logs)}: nothing was measured; give the "
            "work dir of a training (--work-dir of tools/train.py)."
        )
    return wanted


@literal_texts()
def draw_curves(
    logs: Sequence[TrainingLog],
    keys: Sequence[str],
    path: str | Path,
    over: str = "epoch",
    title: str | None = None,
) -> None:
    """Draw curves of trainings, one panel for each key.

    Args:
        logs (Sequence[TrainingLog]): The trainings.
        keys (Sequence[str]): From :func:`find_keys`.
        path (str | Path): The picture to write; its suffix says the format.
        over (str): ``"epoch"`` or ``"iter"``.
        title (str | None): What to write above it.

    Raises:
        UserError: If ``over`` is ``"epoch"`` and a training has none.
    """
    for log in logs:
        if over == "epoch" and not log.epoch_length:
            raise UserError(f"{log.title} does not count in epochs; give --over iter.")
    # Not pyplot: it would set the process's backend, and looks for a display.
    figure = Figure(figsize=(5.2 * len(keys), 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(keys), squeeze=False)[0]
    styles = distinct_styles([log.title for log in logs])
    lines, ends = {}, []
    for panel, key in zip(panels, keys, strict=True):
        share = key.startswith("acc/")
        ends.append([])
        for log, (colour, dash) in zip(logs, styles, strict=True):
            places, values = log.curve(key, over)
            if not places:
                continue
            values = [100 * value for value in values] if share else values
            (line,) = panel.plot(
                places,
                values,
                color=colour,
                linestyle=dash,
                linewidth=2.5 if colour == OURS else 1.8,
                marker="o" if share else None,
                markersize=4,
            )
            lines.setdefault(log.title, line)
            ends[-1].append(Label(places[-1], values[-1], log.title, colour))
        panel.set(xlabel={"epoch": "epoch", "iter": "iteration"}[over])
        panel.set_title(TITLES.get(key, f"{key} (%)" if share else key), fontsize=11)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.draw_without_rendering()  # the places of the panels
    named = max(zip(panels, ends, strict=True), key=lambda each: _room(*each))
    short = len(lines) <= MOST_LABELS and max(map(len, lines)) <= LONGEST_LABEL
    if short and _room(*named) >= 0:
        label_lines(*named, size=9)
    else:
        figure.legend(
            lines.values(),
            lines.keys(),
            loc="outside lower center",
            ncols=1 if max(map(len, lines)) > 40 else min(4, len(lines)),
            fontsize=9,
        )
    with renamed_when_complete(path) as partial:
        figure.savefig(partial)


def _room(panel: Axes, ends: list[Label]) -> float:
    """Return how far apart lines end, in heights of the panel; -1 if one has no end."""
    places = sorted(panel.transData.transform((e.x, e.y))[1] for e in ends)
    if not ends or not all(map(math.isfinite, places)):
        return -1
    if len(ends) == 1:
        return 0
    return min(b - a for a, b in itertools.pairwise(places))


def seconds_by_epoch(log: TrainingLog) -> dict[int, float]:
    """Return the seconds of an iteration in each epoch of a training.

    Args:
        log (TrainingLog): The training.

    Returns:
        dict[int, float]: The mean over the epoch's iterations.
    """
    seconds: dict[int, list[float]] = {}
    for record in log.records:
        if "loss" in record and "time" in record and "epoch" in record:
            seconds.setdefault(record["epoch"], []).append(record["time"])
    return {epoch: sum(times) / len(times) for epoch, times in seconds.items()}


def _joined(earlier: list[dict], later: list[dict]) -> list[dict]:
    """Put a resumed part in the place of what it repeats."""
    for training in (True, False):
        steps = [r["step"] for r in later if ("loss" in r) == training]
        if steps:
            earlier = [
                r
                for r in earlier
                if ("loss" in r) != training or r["step"] < min(steps)
            ]
    return earlier + later
