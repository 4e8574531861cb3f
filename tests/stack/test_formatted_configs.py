import subprocess
import sys

from mmengine.config import Config
from mmengine.config import config as configs

from polynl_mm.stack.formatted_configs import _remembering, format_configs_once


def test_yapf_is_asked_once_for_a_text(monkeypatch):
    asked = []

    def format_code(text, **options):
        asked.append((text, options))
        return text, True

    monkeypatch.setattr(configs, "FormatCode", _remembering(format_code))
    cfg = Config(dict(a=1, b=dict(c=[2, 3])))
    first = cfg.pretty_text
    assert cfg.pretty_text == first and len(asked) == 1
    cfg.a = 2
    assert cfg.pretty_text != first and len(asked) == 2
    assert asked[0][1]["style_config"]["based_on_style"] == "pep8"


def test_text_is_mmengines_own():
    code = (
        "{}from mmengine.config import Config; "
        "print(Config(dict(a=dict(b=[1] * 40, c='d'), e=None)).pretty_text)"
    )
    own, ours = (
        subprocess.run(
            [sys.executable, "-c", code.format(first)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for first in ("", "import polynl_mm; ")
    )
    assert ours == own


def test_another_formatter_is_left_alone(monkeypatch):
    monkeypatch.setattr(configs, "FormatCode", len)
    format_configs_once()
    assert configs.FormatCode is len
