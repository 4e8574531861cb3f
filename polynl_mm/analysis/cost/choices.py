"""One config, with each of several plugins in its backbone in the same places."""

import ast
import copy
import inspect
from typing import Any

from mmengine.config import Config

from polynl_mm.analysis.cost.choice_setting import EXAMPLE
from polynl_mm.user_errors import UserError

NONE = "no plugin"
WITH_PLUGINS = "WithPlugins"
# Where the non-local paper puts five blocks into a ResNet-50.
USUAL = dict(stages=(False, True, True, False), blocks="alternate")


def parse_plugin(text: str) -> dict[str, Any]:
    """Read a plugin as it is written on a command line.

    Args:
        text (str): A type, and what it is built with: ``PolyNL3d``,
            ``NonLocalBlock3d(mode=dot_product, sub_sample=True)``.

    Returns:
        dict[str, Any]: The ``cfg`` of a plugins entry.

    Raises:
        UserError: If it is not of this form.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return dict(type=call.id)
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        values = {str(k.arg): _value(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(
            f"--plugins {text!r} is no plugin: give types with named arguments, such "
            f"as {EXAMPLE}."
        ) from error
    return dict(type=call.func.id, **values)


def _value(node: ast.expr) -> Any:
    # A shell eats quotes: bare words are text.
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def choice_config(
    cfg: Config, plugin: dict[str, Any] | None, layout: dict[str, Any], frames: int
) -> Config:
    """Return a config with a plugin in its backbone, or without any.

    Args:
        cfg (Config): The config to start from, which is not changed. Where its
            backbone has plugins already, they say where the others go.
        plugin (dict[str, Any] | None): The ``cfg`` of a plugins entry; None takes all
            plugins out.
        layout (dict[str, Any]): Keys of a plugins entry, which replace those of the
            config; by default every other block of stages 2 and 3, of the slow
            pathway where there are two.
        frames (int): T, which 3d plugins in 2D recognizers must know.

    Returns:
        Config: A copy.

    Raises:
        UserError: If the config has no model with a backbone.
    """
    if not isinstance(cfg.get("model"), dict) or not cfg.model.get("backbone"):
        raise UserError(
            f"{cfg.filename} has no model with a backbone; give the config of a "
            "recognizer."
        )
    chosen = copy.deepcopy(cfg)
    backbone = chosen.model.backbone
    entries = [USUAL]
    if backbone.type == WITH_PLUGINS:
        given = backbone.pop("plugins", None) or entries
        entries = [given] if isinstance(given, dict) else list(given)
        backbone.type = backbone.pop("of")
    elif "slow_pathway" in backbone:
        entries = [dict(USUAL, pathway="slow")]
    if plugin is None:
        return chosen
    if layout:
        # What a layout says stands for all entries; at excludes the other keys.
        kept = {} if "at" in layout else dict(entries[0])
        entries = [{**kept, **layout}]
    backbone.of, backbone.type = backbone.type, WITH_PLUGINS
    backbone.plugins = [_entry(chosen, entry, plugin, frames) for entry in entries]
    return chosen


def _entry(cfg: Config, place: dict, plugin: dict[str, Any], frames: int) -> dict:
    entry = {key: value for key, value in place.items() if key != "cfg"}
    if str(plugin["type"]).endswith("2d"):
        entry.pop("num_segments", None)
    elif cfg.model.type == "Recognizer2D":
        entry["num_segments"] = entry.get("num_segments") or frames
    return dict(cfg=dict(plugin), **entry)


def with_frames(cfg: Config, before: int, after: int) -> Config:
    """Return the config of a 2D recognizer for clips of another length.

    Args:
        cfg (Config): The config, which is not changed.
        before (int): Its frames.
        after (int): The frames wanted.

    Returns:
        Config: A copy whose model has the new ``num_segments`` wherever it had the
        old, or where its parts take one and were left to their default.
    """
    from mmaction.registry import MODELS

    changed = copy.deepcopy(cfg)
    for part in (changed.model.backbone, changed.model.get("cls_head") or {}):
        built = MODELS.get(str(part.get("of", part.get("type"))))
        if built and "num_segments" in inspect.signature(built).parameters:
            part.setdefault("num_segments", before)
    todo: list[Any] = [changed.model]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if part.get("num_segments") == before:
                part["num_segments"] = after
            todo += part.values()
        elif isinstance(part, list | tuple):
            todo += part
    return changed
