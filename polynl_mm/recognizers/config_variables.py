"""Variables of a config file, such as ``train_pipeline``, that are changed afterwards.

MMEngine copies a variable into the dicts that name it when it reads the file. Whoever
changes it later, on the command line or in a child file, changes nothing that a run
reads. Here the change reaches the copies, or a sentence says which keys would do.
"""

import ast
import copy
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from polynl_mm.user_errors import UserError

Place = tuple[str | int, ...]


def set_variables(cfg: Config, options: dict, read: Collection[str]) -> None:
    """Merge changes of variables into a config, and into what was copied from them.

    Args:
        cfg (Config): Changed in place.
        options (dict): ``{"train_pipeline.1.clip_len": 4}``, of variables only.
        read (Collection[str]): The top-level keys that a run reads.

    Raises:
        UserError: If it cannot be told what was copied from a variable.
    """
    before = _plain(cfg.to_dict())
    names = {key.split(".")[0]: key for key in options}
    for name, key in names.items():
        places = [*_copies(before, name, read), *_below(before, before[name], read)]
        if name == "test_pipeline" and not _loaders(before):
            continue  # read itself, by tools/predict.py
        if not places or _others_of_that_value(before, name, read):
            raise UserError(
                f"--cfg-options {key} would change nothing for certain: {name} is a "
                "variable, which MMEngine copied where the config names it"
                + _advice(before, name, read, key)
            )
    cfg.merge_from_dict(options)
    for name in names:
        for place, text in _below(before, before[name], read):
            _owner(cfg, place)[place[-1]] = cfg[name] + text[len(before[name]) :]
        for place in _copies(before, name, read):
            _owner(cfg, place)[place[-1]] = copy.deepcopy(cfg[name])


def _owner(cfg: Config, place: Place) -> Any:
    for step in place[:-1]:
        cfg = cfg[step]
    return cfg


def check_child_variables(file: Path, cfg: Config, read: Collection[str]) -> None:
    """Refuse a config file whose own variables do not reach what it inherits.

    Args:
        file (Path): The config file.
        cfg (Config): What was read from it.
        read (Collection[str]): The top-level keys that a run reads.

    Raises:
        UserError: Naming a variable, and the keys that still have the inherited value.
    """
    if file.suffix != ".py":
        return
    own = _assigned(file)
    names = {name for name in own if name not in read and not name.startswith("_")}
    if "_base_" not in own or not names:
        return
    merged = _plain(cfg.to_dict())
    for base in Config._get_base_files(str(file)):
        base_path, _ = Config._get_cfg_path(base, str(file))
        inherited = Config.fromfile(base_path, import_custom_modules=False)
        inherited = _plain(inherited.to_dict())
        for name in sorted(names & set(inherited)):
            old = inherited[name]
            if old == merged[name] or not _tells(old):
                continue
            if any(merged[key] == old for key in merged if key not in read):
                continue  # another variable has that value
            left = list(_find({key: merged[key] for key in merged if key in read}, old))
            left += [place for place, _ in _below(merged, old, read)]
            if left:
                where = ", ".join(map(_dotted, left))
                sentence = (
                    f"{file} sets {name}, but {where} still has what {name} was in the "
                    "inherited file: MMEngine copies a variable when it reads the file "
                    f"that names it; set {_dotted(left[0])}, too."
                )
                if ".mim" not in file.parts:
                    raise UserError(sentence)
                # Not the user's to mend, and what it was evaluated with.
                print_log(sentence, logger="current", level=logging.WARNING)


def _assigned(file: Path) -> set[str]:
    """Return the names that a config file assigns at its top level."""
    found = set()
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        for target in getattr(statement, "targets", []):
            if isinstance(target, ast.Name):
                found.add(target.id)
    return found


def _copies(config: dict, name: str, read: Collection[str]) -> list[Place]:
    if not _tells(config[name]):
        return []
    return list(_find({k: config[k] for k in config if k in read}, config[name]))


def _below(config: dict, value: Any, read: Collection[str]) -> list[tuple[Place, str]]:
    """Return what a run reads that was made of a folder: paths below it."""
    if not isinstance(value, str) or not value.strip("./"):
        return []
    looked_at = {key: config[key] for key in config if key in read}
    start = value.rstrip("/") + "/"
    return [(p, t) for p, t in _texts(looked_at) if t != value and t.startswith(start)]


def _plain(tree: Any) -> Any:
    """Return a tree without the scopes that MMEngine writes into what is inherited."""
    if isinstance(tree, dict):
        return {k: _plain(branch) for k, branch in tree.items() if k != "_scope_"}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(_plain, tree))
    return tree


def _tells(value: Any) -> bool:
    """Return whether a value is unlikely to stand somewhere else by chance."""
    if isinstance(value, (list, tuple)):
        return any(isinstance(part, (str, dict)) for part in value)
    return isinstance(value, (str, dict)) and len(value) > 0


def _others_of_that_value(config: dict, name: str, read: Collection[str]) -> list[str]:
    return [
        other
        for other, value in config.items()
        if other != name and other not in read and value == config[name]
    ]


def _find(tree: Any, value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield where a value stands in a tree of dicts and lists."""
    if place and tree == value:
        yield place
    elif isinstance(tree, dict):
        for key, branch in tree.items():
            yield from _find(branch, value, (*place, key))
    elif isinstance(tree, (list, tuple)):
        for index, branch in enumerate(tree):
            yield from _find(branch, value, (*place, index))


def _advice(config: dict, name: str, read: Collection[str], key: str) -> str:
    """Name the keys that a run reads in place of the variable."""
    old = config[name]
    looked_at = {k: config[k] for k in config if k in read}
    places = list(_find(looked_at, old))
    if isinstance(old, str) and len(old) > 1:
        places += [place for place, text in _texts(looked_at) if old in text != old]
    elif not _tells(old):
        places = [place for place in places if str(place[-1]) == name]
    if not places:
        return "; nothing that a run reads has its value: change what you mean itself."
    rest = key[len(name) :]
    return "; set " + " or ".join(_dotted(place) + rest for place in places[:4]) + "."


def _texts(tree: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(tree, str):
        yield place, tree
    elif isinstance(tree, dict):
        for key, branch in tree.items():
            yield from _texts(branch, (*place, key))
    elif isinstance(tree, (list, tuple)):
        for index, branch in enumerate(tree):
            yield from _texts(branch, (*place, index))


def _loaders(config: dict) -> list:
    return [config[k] for k in ("test_dataloader", "val_dataloader") if config.get(k)]


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
