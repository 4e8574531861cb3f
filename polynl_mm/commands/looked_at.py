"""Where the models of a report's runs looked in their clips, as pictures."""

import contextlib
import io
import tempfile
from argparse import Namespace
from pathlib import Path

from polynl_mm.analysis.influence.in_model import choose_plugin, find_plugins
from polynl_mm.analysis.report.recorded_runs import Run
from polynl_mm.commands.drawing_influence import show
from polynl_mm.commands.shown_clip import ShownClip
from polynl_mm.user_errors import UserError, first_line


def draw_looks(run: Run, video: str) -> bytes | None:
    """Draw the influence on the largest response of a run's model in one clip.

    Args:
        run (Run): A training; what is missing is added to its notes, once.
        video (str): The clip's file.

    Returns:
        bytes | None: A PNG; None where the model has no plugin, or its weights or the
        clip cannot be had.
    """
    last = run.folder / "last_checkpoint"
    if run.cfg is None or not last.is_file():
        _note(run, "no influence is shown: its config or last_checkpoint is missing")
        return None
    with tempfile.TemporaryDirectory() as folder:
        args = Namespace(
            config=str(run.cfg.filename),
            checkpoint=last.read_text(encoding="utf-8").strip(),
            video=video,
            label=None,
            labels=None,
            device="cpu",
            out=folder,
            cfg_options=None,
            trust_checkpoint=False,
        )
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                shown = ShownClip(args, "influence")
                if not find_plugins(shown.model):
                    return None
                files = show(shown, choose_plugin(shown.model, None), None)
        except UserError as error:
            _note(run, f"no influence is shown in {video}: {first_line(error)}")
            return None
        return Path(files[0]).read_bytes()


def _note(run: Run, sentence: str) -> None:
    if sentence not in run.notes:
        run.notes.append(sentence)
