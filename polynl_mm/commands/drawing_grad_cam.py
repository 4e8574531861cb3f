"""Drawing Grad-CAM once the command line is read."""

import argparse
from pathlib import Path

import numpy as np

from polynl_mm.analysis.influence.grad_cam import grad_cam
from polynl_mm.analysis.influence.in_model import run_through
from polynl_mm.analysis.influence.pictures import Band, draw_strip, write_film
from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.commands.shown_clip import ShownClip
from polynl_mm.user_errors import UserError, did_you_mean


def check_module(shown: ShownClip, path: str) -> None:
    """Check that a model has a module.

    Args:
        shown (ShownClip): The model.
        path (str): The module's path.

    Raises:
        UserError: If it has none of that path.
    """
    paths = [name for name, _ in shown.model.named_modules() if name]
    if path not in paths:
        hint = did_you_mean(path, paths)
        raise UserError(
            f"--module: the model has no module {path!r}"
            f"{hint or '; print(model) shows what it has.'}"
        )


def show(shown: ShownClip, path: str) -> list[str]:
    """Draw Grad-CAM of one module.

    Args:
        shown (ShownClip): Model, clip and class.
        path (str): The module's path.

    Returns:
        list[str]: The files written.
    """
    clip = shown.clip
    seen = run_through(shown.model, clip.inputs, path, shown.label)
    values = grad_cam(seen).cpu().numpy()  # (1, T', H', W') or (T, H', W')
    values = values[0] if values.ndim == 4 else values
    name = shown.name_of(seen.label)
    band = Band(f"for {name}", "Grad-CAM", values, False)
    files = shown.files
    title = f"{Path(clip.video).name}: Grad-CAM of {path}"
    draw_strip(clip, [band], files["png"], title=title)
    write_film(clip, band, files["mp4"])
    with renamed_when_complete(files["npz"]) as partial:
        np.savez_compressed(partial, grad_cam=values, label=seen.label)
    print(f"{path}: {name} has the score {seen.scores[seen.label]:.3g}.", flush=True)
    return [str(file) for file in files.values()]


def run(args: argparse.Namespace) -> None:
    """Draw it.

    Args:
        args (argparse.Namespace): The command line of the tool.
    """
    shown = ShownClip(args, "grad_cam")
    check_module(shown, args.module)
    print(f"Written: {', '.join(show(shown, args.module))}")
