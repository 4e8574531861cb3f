import os

import pytest

from polynl_mm.runtime.text_files import read_class_names, read_text
from polynl_mm.runtime.user_errors import UserError


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
