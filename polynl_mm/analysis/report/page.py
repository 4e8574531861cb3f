"""The page of a report: what is known of runs, put into one file of HTML."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment
from markupsafe import Markup

from polynl_mm.analysis.accuracy.accuracies import class_names
from polynl_mm.analysis.report import plots
from polynl_mm.analysis.report.confused_clips import find_confused, picture_address
from polynl_mm.analysis.report.recorded_runs import Run, config_differences
from polynl_mm.atomic_files import renamed_when_complete

# Draws where a run's model looked in a video: the content of a PNG, or None.
Influence = Callable[[Run, str], bytes | None]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
:root { --page: #ffffff; --panel: #ffffff; --band: #f3f5f7; --ink: #1c2024;
        --faint: #5f6770; --line: #d7dce1; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --panel: #14171a; --band: #1f2428; --ink: #e6e8ea;
          --faint: #a0a8b0; --line: #363c42; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 1rem; background: var(--page);
       color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; font-weight: 600; margin: .5rem 0 0; }
p, li { max-width: 75ch; color: var(--faint); overflow-wrap: anywhere; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; margin: 0;
       list-style: none; position: sticky; top: 0; z-index: 9;
       background: var(--page); }
.key li { display: flex; align-items: center; gap: .5rem; font-weight: 600; }
.key i { width: 2rem; border-top-width: 3px; }
.grid { display: grid; gap: 1rem;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.grid > *, .wide { min-width: 0; overflow-x: auto; }
figure { margin: 0 0 1rem; } figure img { max-width: 100%; display: block; }
figcaption { color: var(--faint); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
</style>
{{ scripts }}
<script>Bokeh.logger.set_level("error")</script>
</head>
<body>
<h1>{{ title }}</h1>
<ul class="key">{% for name, colour, dash in key %}
<li style="color: {{ colour }}"><i style="border-top-style: {{ dash }}"></i>
{{ name }}</li>
{%- endfor %}</ul>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% if section.notes %}<ul>{% for note in section.notes %}<li>{{ note }}</li>
{%- endfor %}</ul>{% endif %}
{% if section.parts %}<div class="{{ section.layout }}">
{% for heading, div in section.parts %}<div>
{% if heading %}<h3>{{ heading }}</h3>{% endif %}
{{ div }}</div>
{% endfor %}</div>{% endif %}
{% if section.clips %}<div class="grid">
{% for clip in section.clips %}<figure>
{% if clip.strip %}<img src="{{ clip.strip }}" alt="frames of the clip">{% endif %}
{% if clip.influence %}<img src="{{ clip.influence }}" alt="where the model looked">
{% endif %}<figcaption><b>{{ clip.truth }}</b> taken for <b>{{ clip.taken_for }}</b>
({{ clip.scores }}): {{ clip.path }}{% if not clip.strip %} (no frame could be read)
{%- endif %}</figcaption>
</figure>{% endfor %}</div>{% endif %}
{% endfor %}
{{ script }}
</body>
</html>
"""


def write_report(
    runs: Sequence[Run],
    path: str | Path,
    title: str,
    labels: Sequence[str] | None = None,
    confused: int = 6,
    influence: Influence | None = None,
) -> None:
    """Write a report, which needs nothing but itself to be read.

    Args:
        runs (Sequence[Run]): The runs, with their costs.
        path (str | Path): The file.
        title (str): What to call it.
        labels (Sequence[str] | None): The names of the classes; default their numbers.
        confused (int): The most clips of each run to show.
        influence (Callable | None): Draws where a run's model looked in a video;
            shown below the frames of confused clips.

    Raises:
        UserError: If the labels are more or fewer than the classes.
    """
    models: dict[str, object] = {}
    # First, for it adds to the runs' notes, which the summary says.
    clips = _clips(runs, labels, confused, influence)
    sections = [_summary(runs, models), *_curves(runs, models)]
    sections += _confusions(runs, labels, models)
    sections += clips
    sections += _tables(runs, models)
    script, divs = components(models) if models else ("", {})
    environment = Environment(autoescape=True)
    for section in sections:
        section["parts"] = [
            (heading, Markup(divs[name])) for heading, name in section.get("parts", [])
        ]
    resources = Resources(mode="inline", components=["bokeh", "bokeh-tables"])
    # With a level given here, the page would say in its console that it was set.
    resources.log_level = None
    styles = [
        (run.title, colour, plots.DASHES[dash].replace("dashdot", "double"))
        for run, (colour, dash) in zip(runs, plots.styles_of(runs), strict=True)
    ]
    text = environment.from_string(PAGE).render(
        title=title,
        scripts=Markup(resources.render()),
        script=Markup(script),
        sections=sections,
        key=styles,
    )
    with renamed_when_complete(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _add(models: dict, model: object) -> str:
    name = f"part{len(models)}"
    models[name] = model
    return name


def _summary(runs: Sequence[Run], models: dict) -> dict:
    def numbers(key: str, of: str, factor: float) -> list[float]:
        return [factor * getattr(run, of).get(key, math.nan) for run in runs]

    columns = {
        "top-1, %": numbers("top1", "accuracies", 100),
        "top-5, %": numbers("top5", "accuracies", 100),
        "mean class, %": numbers("mean1", "accuracies", 100),
        "GFLOPs": numbers("gflops", "cost", 1),
        "latency, ms": numbers("milliseconds", "cost", 1),
        "parameters": numbers("parameters", "cost", 1),
    }
    known = {
        head: values
        for head, values in columns.items()
        if not all(map(math.isnan, values))
    }
    digits = {"GFLOPs": "0.000", "parameters": "0,0"}
    table = plots.make_table(
        {"run": [run.title for run in runs], **known},
        {head: digits.get(head, "0.0") for head in known},
    )
    notes = [f"{run.title}: {note}" for run in runs for note in run.notes]
    return dict(
        title="Results",
        text="A click on the head of a column sorts by it.",
        notes=notes,
        parts=[("", _add(models, table))],
        layout="wide",
    )


def _curves(runs: Sequence[Run], models: dict) -> list[dict]:
    sections = []
    for title, drawn in (
        ("Curves", plots.draw_curves(runs)),
        ("Accuracy and cost", plots.draw_accuracy_against_cost(runs)),
    ):
        parts = [(heading, _add(models, plot)) for heading, plot in drawn]
        if parts:
            sections.append(dict(title=title, parts=parts, layout="grid"))
    return sections


def _confusions(
    runs: Sequence[Run], labels: Sequence[str] | None, models: dict
) -> list[dict]:
    parts = []
    for run in runs:
        if run.results is not None:
            names = class_names(run.results.num_classes, labels)
            plot = plots.draw_confusions(run, names)
            parts.append((run.title, _add(models, plot)))
    text = "Per cent of the clips of each true class."
    return [dict(title="Confusions", text=text, parts=parts, layout="grid")] * bool(
        parts
    )


def _clips(
    runs: Sequence[Run],
    labels: Sequence[str] | None,
    count: int,
    influence: Influence | None,
) -> list[dict]:
    sections = []
    for run in runs:
        if run.results is None or not count:
            continue
        names = class_names(run.results.num_classes, labels)
        clips = []
        for clip in find_confused(run.results, names, count):
            looked = influence(run, clip.path) if influence else None
            clips.append(
                dict(
                    vars(clip),
                    scores=f"{clip.score:.3g} against {clip.true_score:.3g}",
                    influence=picture_address(looked, "png") if looked else "",
                )
            )
        text = "" if clips else "No clip is taken for another class."
        title = f"Most confused clips of {run.title}"
        sections.append(dict(title=title, text=text, clips=clips))
    return sections


def _tables(runs: Sequence[Run], models: dict) -> list[dict]:
    titles = [run.title for run in runs]
    keys = list(dict.fromkeys(key for run in runs for key in run.environment))
    environment = {key: [run.environment.get(key, "") for run in runs] for key in keys}
    sections = []
    for title, table in (
        ("Differences of the configs", config_differences(runs)),
        ("Environment", environment),
    ):
        if not table:
            continue
        columns = {"key": list(table)}
        for place, name in enumerate(titles):
            # Two runs may have one name.
            head = name if titles.count(name) == 1 else f"{name} ({place + 1})"
            columns[head] = [values[place] for values in table.values()]
        part = ("", _add(models, plots.make_table(columns, {})))
        sections.append(dict(title=title, parts=[part], layout="wide"))
    return sections
