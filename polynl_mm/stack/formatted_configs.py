"""A config is laid out once, not every time it is shown.

Mends: MMEngine formats the whole config with yapf, 0.3 seconds each time, for the log,
the work dir, the visualizer and the message hub: seven times before a training starts.
Switches itself off where ``FormatCode`` is no longer yapf's own.
"""

import functools

from mmengine.config import config as configs

# A run has one config; tools that compare have a few.
REMEMBERED = 8


def format_configs_once() -> None:
    """Let MMEngine ask yapf once for each config text."""
    format_code = getattr(configs, "FormatCode", None)
    if getattr(format_code, "__module__", "").startswith("yapf.") and not hasattr(
        format_code, "__wrapped__"
    ):
        configs.FormatCode = _remembering(format_code)


def _remembering(format_code):
    @functools.lru_cache(REMEMBERED)
    def remembered(text, style):
        return format_code(text, style_config=dict(style))

    @functools.wraps(format_code)
    def format_once(text, *args, **options):
        # As MMEngine asks; anything else is yapf's own affair.
        if args or options.keys() != {"style_config"}:
            return format_code(text, *args, **options)
        return remembered(text, tuple(options["style_config"].items()))

    return format_once
