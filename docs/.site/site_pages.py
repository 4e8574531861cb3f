"""A hook of mkdocs: pages of the site that stand elsewhere in the repository.

README.md is its first page, data/README.md the one of data sets, and those of configs/
keep their folders, with the configs beside them. Links follow.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# The page's place in the repository, and in the site.
PAGES = {"README.md": "index.md", "data/README.md": "datasets.md"}
PAGES |= {
    page.relative_to(ROOT).as_posix(): page.relative_to(ROOT).as_posix()
    for page in sorted(ROOT.glob("configs/**/README.md"))
}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages, the configs and the licence."""
    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=_relink(text, source)))
    for path in [*ROOT.glob("configs/*/*.py"), ROOT / "LICENSE"]:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Have the links of a page of docs/ lead to where the site has their target."""
    source = f"docs/{page.file.src_uri}"
    return _relink(markdown, source) if (ROOT / source).is_file() else markdown


def _relink(text: str, source: str) -> str:
    here = Path(_place_in_site(source)).parent

    def follow(match: re.Match) -> str:
        target = (ROOT / source).parent.joinpath(match[1]).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        place = _place_in_site(target.relative_to(ROOT).as_posix())
        up = "../" * len(here.parts)
        return f"]({up}{place}{match[2] or ''})"

    return LINK.sub(follow, text)


def _place_in_site(path: str) -> str:
    return PAGES.get(path, path.removeprefix("docs/"))
