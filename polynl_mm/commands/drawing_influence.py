"""Drawing influence once the command line is read: position, strip, film."""

import argparse
from pathlib import Path

import numpy as np

from polynl_mm.analysis.influence.in_model import (
    choose_plugin,
    explain,
    largest_response,
    run_through,
)
from polynl_mm.analysis.influence.overlay import to_feature, to_input, to_video
from polynl_mm.analysis.influence.pictures import Band, draw_strip, write_film
from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.commands.shown_clip import ShownClip
from polynl_mm.user_errors import UserError


def parse_place(text: str) -> tuple[float, float, float]:
    """Read ``X,Y,T``.

    Args:
        text (str): What the user gave.

    Returns:
        tuple[float, float, float]: x and y in pixels, the time in seconds.

    Raises:
        UserError: If these are not three numbers.
    """
    try:
        x, y, seconds = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f"--at is X,Y,T, pixels and seconds of the video such as 160,120,1.5, not "
            f"{text!r}."
        ) from error
    return x, y, seconds


def show(shown: ShownClip, path: str, at: str | None) -> list[str]:
    """Draw the influence on one position of one plugin.

    Args:
        shown (ShownClip): Model, clip and class.
        path (str): The plugin's path.
        at (str | None): ``X,Y,T``, or None for the position of the largest update.

    Returns:
        list[str]: The files written.
    """
    clip, plugin = shown.clip, shown.model.get_submodule(path)
    place = None if at is None else clip.find(*parse_place(at))
    seen = run_through(shown.model, clip.inputs, path, shown.label)
    images = plugin.dims == 2  # the frames are the samples
    grid = tuple(seen.features.shape[2:])
    grid = (len(seen.features), *grid) if images else grid
    if place is None:
        found = largest_response(plugin, seen)
        feature = found if images else found[1:]
    else:
        feature = to_feature(place, clip.size, grid)
    sample = feature[0] if images else 0
    position = feature[1:] if images else feature
    found = explain(plugin, seen, (sample, *position))
    gradient = seen.gradient[(sample, slice(None), *position)]
    maps = {
        name: shown.over_clip(sample, values.cpu().numpy(), len(seen.features))
        for name, values in (
            ("shares", found.shares),
            ("norms", found.norms),
            ("toward_class", found.toward(gradient)),
        )
    }
    name = shown.name_of(seen.label)
    count = maps["shares"].size
    bands = [
        Band(
            "share of the update", "times an equal share", maps["shares"] * count, True
        ),
        Band("length", "of the contribution", maps["norms"], False),
        Band(f"towards\n{name}", "score", maps["toward_class"], True),
    ]
    mark = to_video(clip, to_input(feature, clip.size, grid))
    kind = type(plugin).__name__
    if not maps["norms"].any():
        print(f"{path} ({kind}) adds nothing: it is the identity still.", flush=True)
    title = (
        f"{Path(clip.video).name}: what each position contributes to the marked one, "
        f"{kind} at {path}"
    )
    files = shown.files
    draw_strip(clip, bands, files["png"], title=title, mark=mark)
    write_film(clip, bands[0], files["mp4"], mark)
    with renamed_when_complete(files["npz"]) as partial:
        np.savez_compressed(partial, at=feature, label=seen.label, **maps)
    time = clip.seconds[mark[0]]
    print(
        f"{kind} at {path}, the position x={mark[1]:.0f}, y={mark[2]:.0f}, "
        f"t={time:.2f} s ({feature} of {grid}); {name} has the score "
        f"{seen.scores[seen.label]:.3g}.",
        flush=True,
    )
    return [str(file) for file in files.values()]


def run(args: argparse.Namespace) -> None:
    """Draw it.

    Args:
        args (argparse.Namespace): The command line of the tool.
    """
    if args.at is not None:
        parse_place(args.at)
    shown = ShownClip(args, "influence")
    written = show(shown, choose_plugin(shown.model, args.plugin), args.at)
    print(f"Written: {', '.join(written)}")
