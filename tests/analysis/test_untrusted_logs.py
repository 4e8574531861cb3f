"""Logs may come from anybody: each gives curves, or one sentence."""

import json
import os
import time

import pytest

from polynl_mm.analysis.accuracy.runs import read_scalars
from polynl_mm.analysis.accuracy.training_curves import (
    draw_curves,
    find_keys,
    read_training,
    seconds_by_epoch,
)
from polynl_mm.user_errors import UserError

GOOD = '{"loss": 0.7, "time": 0.5, "epoch": 1, "iter": 2, "step": 2}'


def write_log(folder, *lines):
    path = folder / "scalars.json"
    path.write_text("\n".join([GOOD, *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[" * 100_000, "is nested too deep"),
        ('{"loss": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
        ('{"loss": ' + "1" * 5000 + ', "step": 1}', "number of too many digits"),
        ('{"loss": ' + "1" * 4000 + ', "step": 1}', "loss is 1+... where a number of"),
        ('{"loss": 1e308, "step": 1}', "loss is 1e.308 where"),
        ('{"loss": "low", "epoch": 1, "step": 3}', "loss is 'low' where a number is"),
        ('{"loss": null, "epoch": 1, "step": 3}', "loss is None where"),
        ('{"loss": true, "epoch": 1, "step": 3}', "loss is True where"),
        ('{"acc/top1": [1], "step": 3}', "acc/top1 is a list where"),
        ('{"loss": 1, "time": "1 s", "epoch": 1, "step": 3}', "time is '1 s' where"),
        ('{"loss": 1, "time": Infinity, "epoch": 1, "step": 3}', "time is inf where"),
        *(
            (f'{{"loss": 1, "epoch": {epoch}, "step": 3}}', "epoch is .* whole number")
            for epoch in (
                '"one"',
                "0",
                "-1",
                "null",
                "[1]",
                "{}",
                "1e308",
                "NaN",
                "1.5",
            )
        ),
        ('{"loss": 1, "epoch": 1, "step": "3"}', "step is '3' where a whole number"),
        ('{"loss": 1, "epoch": 1, "iter": 1e400, "step": 3}', "iter is inf where"),
        ('{"a\\nb": 1, "step": 3}', "printable characters"),
        (json.dumps({"k" * 10_000: 1, "step": 3}), "at most 200"),
        (json.dumps({f"k{n}": 1 for n in range(100_000)}), "more than 1000 different"),
    ],
    ids=lambda text: text[:40],
)
def test_one_sentence(tmp_path, line, sentence):
    path = write_log(tmp_path, line)
    begun = time.monotonic()
    with pytest.raises(UserError, match=f"scalars.json, line 2.*{sentence}") as raised:
        log = read_training(path)
        seconds_by_epoch(log)
        draw_curves([log], find_keys([log], None), tmp_path / "a.png")
    assert len(str(raised.value)) < 500
    assert time.monotonic() - begun < 10


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "scalars.json")
    for run in (tmp_path, tmp_path / "scalars.json", "/dev/zero"):
        with pytest.raises(UserError, match="no regular file"):
            read_training(run)
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(UserError, match=r"at most \d+ is read"):
        read_training(tmp_path / "large.json")


def test_what_is_no_record_is_left_out_and_links_are_followed(tmp_path):
    path = write_log(
        tmp_path, "3", "[]", "null", "{", '{"loss": NaN, "epoch": 2, "step": 4}'
    )
    (tmp_path / "link.json").symlink_to(path)
    records = read_scalars(tmp_path / "link.json")
    assert [record["step"] for record in records] == [2, 4]
    log = read_training(tmp_path / "link.json")
    draw_curves([log], ["loss"], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_names_are_no_formulas_and_have_to_fit(tmp_path):
    line = json.dumps({"$\\frac{$": 1, "note": "text", "epoch": 1, "step": 3})
    log = read_training(write_log(tmp_path, line))
    assert "note" not in log.measured()
    draw_curves([log], ["$\\frac{$"], tmp_path / "a.png", title="$\\frac{$")
    many = json.dumps({**{f"k{n}": 1 for n in range(100)}, "epoch": 1, "step": 3})
    log = read_training(write_log(tmp_path, many))
    with pytest.raises(UserError, match="--keys gives 100 keys; at most 20"):
        find_keys([log], [f"k{n}" for n in range(100)])
    assert find_keys([log], ["k1", "k1"]) == ["k1"]
    with pytest.raises(UserError, match=r"recorded are loss.*, \.\.\.$"):
        find_keys([log], ["qqqqqq"])
    (tmp_path / "scalars.json").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="nothing was measured"):
        find_keys([read_training(tmp_path)], None)
