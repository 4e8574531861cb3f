import json
import os

import pytest

from polynl_mm.text_files import parse_json, read_class_names, read_text
from polynl_mm.user_errors import UserError


@pytest.mark.parametrize("start", [b"", "\ufeff".encode()], ids=["plain", "mark"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=repr)
def test_names_in_any_utf8(tmp_path, start, ending):
    lines = ["jogging", "crêpe  flipping", "走る"]
    content = ending.join(line.encode() for line in [*lines, "", ""])
    (tmp_path / "names.txt").write_bytes(start + content)
    assert read_class_names(tmp_path / "names.txt") == lines


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\na\nb\n", "no name in line 1"),
        (b"a\n  \nb\n", "no name in line 2"),
        (b"\n\n", "is empty"),
        ("crêpe\n".encode("latin-1"), r"not a text file \(UTF-8\)"),
        ("a\nb\n".encode("utf-16"), r"not a text file \(UTF-8\)"),
        ("a\nb\n".encode("utf-16-le"), r"not a text file \(UTF-8\)"),
    ],
)
def test_other_files_of_names_are_refused(tmp_path, content, sentence):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(UserError, match=f"label file .*names.txt .*{sentence}"):
        read_class_names(tmp_path / "names.txt")


def test_what_is_no_file_is_refused_without_reading(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    for name, sentence in (
        ("pipe", "is no regular file"),
        (".", "is a folder"),
        ("gone", "cannot be read"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_text(tmp_path / name, "list")


def test_size_is_bounded_and_links_are_followed(tmp_path):
    (tmp_path / "list.txt").write_text("a 0\n")
    (tmp_path / "link.txt").symlink_to("list.txt")
    assert read_text(tmp_path / "link.txt", "list") == "a 0\n"
    for path, most, sentence in (
        (tmp_path / "link.txt", 3, "has 4 bytes; a file of at most 3"),
        ("/dev/zero", 3, "is no regular file"),
        ("/proc/self/status", 3, "no end within the 3 bytes"),  # tells no size
    ):
        with pytest.raises(UserError, match=sentence):
            read_text(path, "list", most)


def test_json_of_anybody():
    assert parse_json('{"a": [1]}', "a.json") == {"a": [1]}
    for text, sentence in (
        ("[" * 10**5, "a.json is nested too deep"),
        ("1" * 5000, "a.json has a number of too many digits"),
    ):
        with pytest.raises(UserError, match=sentence):
            parse_json(text, "a.json")
    with pytest.raises(json.JSONDecodeError):
        parse_json("{", "a.json")
