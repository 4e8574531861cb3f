"""The index of our configs that mim and MMEngine read, made from the READMEs' tables.

``python -m polynl_mm.experiments.model_index`` writes configs/*/metafile.yml and
model-index.yml; a test keeps them alike.
"""

import re
from pathlib import Path

import yaml

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.installation import CARRIED, CONFIGS

ROW = re.compile(
    r"\| \[(?P<name>[^]]+)\]\(\S+\.py\) \| (?P<block>.+?) \| (?P<count>.+?) "
    r"\| [\d ]+ \| (?P<gflops>\S+) \| (?P<parameters>\S+) \|$"
)


def make_metafile(folder: Path) -> str:
    """Return the metafile of a folder of configs.

    Args:
        folder (Path): A folder with a README that has a table of experiments.

    Returns:
        str: YAML, in the form of MMAction2's. Models without weights have no results.
    """
    page = (folder / "README.md").read_text(encoding="utf-8")
    title = page.partition("\n")[0].removeprefix("# ")
    models = []
    for line in page.splitlines():
        row = ROW.match(line)
        if row is None:
            continue
        for split in "123" if "{1,2,3}" in row["name"] else " ":
            name = row["name"].replace("{1,2,3}", split)
            models.append(
                {
                    "Name": name,
                    "Config": f"configs/{folder.name}/{name}.py",
                    "In Collection": title,
                    "Metadata": {
                        "Plugin": row["block"],
                        "Plugins": row["count"],
                        "FLOPs": f"{row['gflops']}G",
                        "Parameters": f"{row['parameters']}M",
                    },
                }
            )
    collection = {"Name": title, "README": f"configs/{folder.name}/README.md"}
    return yaml.safe_dump(
        {"Collections": [collection], "Models": models},
        sort_keys=False,
        allow_unicode=True,
    )


def find_folders() -> list[Path]:
    """Return the folders of configs that have a table of experiments."""
    return [
        page.parent
        for page in sorted(CONFIGS.glob("*/README.md"))
        if any(map(ROW.match, page.read_text(encoding="utf-8").splitlines()))
    ]


def make_index() -> str:
    """Return the list of all metafiles."""
    files = [f"configs/{folder.name}/metafile.yml" for folder in find_folders()]
    return yaml.safe_dump({"Import": files})


def main() -> None:
    """Write all files."""
    contents = {
        folder / "metafile.yml": make_metafile(folder) for folder in find_folders()
    }
    contents[CARRIED / "model-index.yml"] = make_index()
    for file, text in contents.items():
        with renamed_when_complete(file.resolve()) as partial:
            partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
