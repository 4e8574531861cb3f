"""Scores of a video over time: its windows', what they name, and where that changes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.literal_texts import literal_texts

MOST_CURVES = 8
OTHERS = "lightgrey"
COLOURS = (0, 1, 2, 3, 4, 5, 6, 9)  # of tab10, without its grey
MINUTES_FROM = 300  # seconds, from which on the axis counts minutes


@dataclass
class Segment:
    """A stretch of a video whose windows name the same class.

    Attributes:
        start (float): In seconds.
        end (float): In seconds.
        label (str): The class.
        probability (float): The mean over its windows.
    """

    start: float
    end: float
    label: str
    probability: float


@dataclass
class Timeline:
    """Scores of the windows of a video.

    Attributes:
        video (str): The file.
        labels (list[str]): The names of the classes.
        starts (list[float]): Of each window, in seconds.
        ends (list[float]): Of each window, in seconds.
        scores (list[np.ndarray]): One score per class for each window.
        note (str): What is to know about the file, such as damage; mostly empty.
    """

    video: str
    labels: list[str] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    note: str = ""

    def segments(self) -> list[Segment]:
        """Return what the video shows, in the order of time.

        A border lies in the middle between the centres of the two windows that differ:
        at most half a step from where a sudden change is seen.

        Returns:
            list[Segment]: From the video's start to its end, without gaps.
        """
        found, tops = [], [int(scores.argmax()) for scores in self.scores]
        centres = [(a + b) / 2 for a, b in zip(self.starts, self.ends, strict=True)]
        first = 0
        for place in range(1, len(tops) + 1):
            if place < len(tops) and tops[place] == tops[first]:
                continue
            start = found[-1].end if found else self.starts[0]
            last = place == len(tops)
            end = self.ends[-1] if last else (centres[place - 1] + centres[place]) / 2
            values = [float(scores[tops[first]]) for scores in self.scores[first:place]]
            label = self.labels[tops[first]]
            found.append(Segment(start, end, label, float(np.mean(values))))
            first = place
        return found

    def lines_at(self, time: float, top_k: int) -> list[str]:
        """Return the best classes of the window around a time, a line of text each.

        Args:
            time (float): In seconds.
            top_k (int): How many.

        Returns:
            list[str]: Best first.
        """
        centres = (np.asarray(self.starts) + np.asarray(self.ends)) / 2
        scores = self.scores[int(np.abs(centres - time).argmin())]
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [f"{scores[k]:7.2%}  {self.labels[k]}" for k in best]

    def record(self) -> dict:
        """Return all of it as JSON takes it."""
        return {
            "video": self.video,
            "note": self.note,
            "labels": self.labels,
            "segments": [vars(segment) for segment in self.segments()],
            "windows": [
                {"start": round(start, 6), "end": round(end, 6), "scores": _short(row)}
                for start, end, row in self._rows()
            ],
        }

    def write_csv(self, target: str | Path) -> None:
        """Write a line for each window: its times, its best class, every score.

        Args:
            target (str | Path): The file.
        """
        with (
            renamed_when_complete(target) as partial,
            open(partial, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["start", "end", "best", *self.labels])
            for start, end, scores in self._rows():
                best = self.labels[int(scores.argmax())]
                times = f"{start:.6f}", f"{end:.6f}"
                writer.writerow([*times, best, *_short(scores)])

    @literal_texts()
    def draw(self, target: str | Path) -> None:
        """Draw the most probable classes over time.

        Args:
            target (str | Path): The picture's file.
        """
        unit, scale = ("min", 60) if self.ends[-1] >= MINUTES_FROM else ("s", 1)
        scores = np.stack(self.scores)  # (windows, classes)
        shown = _most_present(scores)
        colours = {
            self.labels[k]: colormaps["tab10"](COLOURS[n]) for n, k in enumerate(shown)
        }
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        curves, strip = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [8, 1]}
        )
        centres = (np.asarray(self.starts) + np.asarray(self.ends)) / 2 / scale
        for k in shown:
            label = self.labels[k]
            curves.plot(
                centres,
                scores[:, k],
                color=colours[label],
                label=label if len(label) < 32 else label[:30] + "…",
                marker="o" if len(centres) <= 60 else None,
                markersize=3,
            )
        segments = self.segments()
        if any(segment.label not in colours for segment in segments):
            curves.plot([], [], color=OTHERS, linewidth=6, label="other classes")
        for segment in segments:
            strip.axvspan(
                segment.start / scale,
                segment.end / scale,
                color=colours.get(segment.label, OTHERS),
                linewidth=0,
            )
        curves.set_ylim(0, 1.02)
        curves.set_ylabel("probability")
        curves.set_title(Path(self.video).name)
        curves.grid(alpha=0.3)
        curves.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        strip.set_yticks([])
        strip.set_ylabel("best", rotation=0, ha="right", va="center")
        strip.set_xlabel(f"time ({unit})")
        strip.set_xlim(0, self.ends[-1] / scale)
        with renamed_when_complete(target) as partial:
            figure.savefig(partial, dpi=110)

    def _rows(self):
        return zip(self.starts, self.ends, self.scores, strict=True)


def _most_present(scores: np.ndarray) -> list[int]:
    """Return the classes to draw: those that are best somewhere, longest first."""
    best = np.bincount(scores.argmax(1), minlength=scores.shape[1])
    order = np.lexsort((-scores.max(0), -best))
    return order[: min(MOST_CURVES, scores.shape[1])].tolist()


def _short(scores: Sequence) -> list[float]:
    """Round to what float32 holds."""
    return [float(f"{score:.7g}") for score in scores]
