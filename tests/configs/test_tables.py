"""The numbers in the READMEs of configs/ are those that get_flops.py prints."""

import importlib.util
import re
from pathlib import Path

import pytest

from polynl_mm.commands import config_tables as command
from polynl_mm.experiments import config_tables
from polynl_mm.experiments.config_tables import PUBLISHED, published_results

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in (ROOT / "configs").glob("*/README.md")
    if config_tables.START in page.read_text(encoding="utf-8")
)
ROW = re.compile(r"\| \[[^]]+\]\((\S+\.py)\) \| .* \| ([\d ]+) \| (\S+) \| (\S+) \|$")
PUBLISHED_ROW = re.compile(
    r"\| (\w\S+) \| [\d.]+ \| [\d.]+ \| ([\d ]+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|"
)


@pytest.fixture(scope="module")
def get_flops():
    path = ROOT / "tools" / "analysis_tools" / "get_flops.py"
    spec = importlib.util.spec_from_file_location("get_flops", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def count(tool, capsys, config, shape):
    """Return GFLOPs and millions of parameters as the tool prints them."""
    capsys.readouterr()
    tool.main([str(config), "--shape", *shape.split()])
    said = capsys.readouterr().out
    return (
        re.search(r"FLOPs: (\S+) G", said)[1],
        re.search(r"Parameters: (\S+) M", said)[1],
    )


def test_every_folder_of_configs_has_a_page():
    folders = {path.parent for path in (ROOT / "configs").glob("*/*.py")}
    pages = {page.parent for page in PAGES}
    assert set(PUBLISHED) | {"ucf101"} == {page.name for page in pages}
    assert pages <= folders


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_costs_of_our_configs(page, get_flops, capsys):
    lines = page.read_text(encoding="utf-8").splitlines()
    rows = [match.groups() for line in lines if (match := ROW.match(line))]
    shown = {file for file, *_ in rows}
    files = {path.name for path in page.parent.glob("*.py")}
    assert shown == {re.sub(r"split\d", "split1", name) for name in files}
    for file, shape, gflops, parameters in rows:
        counted = count(get_flops, capsys, page.parent / file, shape)
        assert counted == (gflops, parameters), file


@pytest.mark.parametrize("folder", PUBLISHED)
def test_published_costs_agree_with_ours(folder, get_flops, capsys):
    page = (ROOT / "configs" / folder / "README.md").read_text(encoding="utf-8")
    rows = {match[1]: match.groups() for match in PUBLISHED_ROW.finditer(page)}
    results = published_results(folder)
    assert list(rows) == [result.name for result in results]
    for result in results:
        _, shape, said, gflops, said_parameters, parameters = rows[result.name]
        assert (float(said), float(said_parameters)) == (
            result.gflops,
            result.parameters,
        )
        assert count(get_flops, capsys, result.config, shape) == (gflops, parameters)
        # MMAction2's counter adds norms, activations and pooling. It rounds C2D's
        # 19.3 to 19.
        whole = result.gflops == int(result.gflops)
        assert float(gflops) == pytest.approx(
            result.gflops, rel=0.01, abs=0.5 if whole else 0
        )
        if result.name.startswith("tsm_imagenet-pretrained-r50_8xb16"):
            continue  # published with the head of another dataset: see below
        assert float(parameters) == pytest.approx(result.parameters, abs=0.051)


def test_published_parameters_of_tsm_are_those_of_174_classes(get_flops, capsys):
    from mmengine.registry import init_default_scope

    from polynl_mm.recognizers.configs import load_config

    base = published_results("tsm")[0]
    cfg = load_config(base.config, {"model.cls_head.num_classes": 174})
    init_default_scope("mmaction")
    model = config_tables.build_model(cfg)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    assert parameters == pytest.approx(base.parameters, abs=0.01)
    assert count(get_flops, capsys, base.config, "8 3 224 224")[1] == "24.3"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of configs with an empty page, beside the real ones."""
    monkeypatch.setattr(config_tables, "CONFIGS", tmp_path)
    folder = tmp_path / "tiny"
    folder.mkdir()
    source = ROOT / "configs/bookends/slowonly_r18_2xb16-8x2x1-5e_bookends-rgb.py"
    text = source.read_text(encoding="utf-8")
    crop = 'dict(type="DecordDecode"),\n    dict(type="CenterCrop", crop_size=64),'
    text = text.replace('dict(type="DecordDecode"),', crop)
    for split in (1, 2):
        (folder / f"tiny_split{split}.py").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(
        f"# Tiny\n\n{config_tables.START}\n{config_tables.END}\n\nThe end.\n"
    )
    return folder


def test_command_writes_and_checks_the_tables(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--check"])
    assert stop.value.code == 2
    assert "out of date: tiny; run python tools/" in capsys.readouterr().err

    command.main([])
    page = (folder / "README.md").read_text()
    assert page.startswith("# Tiny") and page.endswith("The end.\n")
    assert "| [tiny_split{1,2,3}](tiny_split1.py) | none | 0 | 3 8 64 64 |" in page
    assert "split2" not in page
    command.main(["tiny", "--check"])


def test_unknown_folder_is_named(folder, capsys):
    with pytest.raises(SystemExit):
        command.main(["tinny"])
    assert "did you mean 'tiny'?" in capsys.readouterr().err
