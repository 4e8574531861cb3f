"""Packaging of polynl_mm.

The OpenMMLab stack and torch are deliberately *not* hard requirements: mmcv and
mmcv-lite provide the same module, as do mmengine and its forks, and a user's own
torch must never be replaced. ``import polynl_mm`` checks what is there and says,
in one sentence, what is missing and how to get it.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    text = (ROOT / "polynl_mm" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    stripped = (line.split("#")[0].strip() for line in lines.splitlines())
    return [line for line in stripped if line and not line.startswith("-")]


setup(
    name="polynl_mm",
    version=read_version(),
    description="Poly-NL and the non-local family for MMAction2, at linear cost",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="polynl_mm developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["polynl_mm", "polynl_mm.*"]),
    # .mim holds links to configs/, tools/ and the model index: as files in an install.
    package_data={"polynl_mm": [".mim/model-index.yml", ".mim/*/**/*"]},
    entry_points={"console_scripts": ["polynl-mm = polynl_mm.__main__:main"]},
    install_requires=read_requirements("runtime"),
    extras_require={
        "stack": read_requirements("stack"),
        "data": read_requirements("data"),
        "deployment": read_requirements("deployment"),
        "docs": read_requirements("docs"),
        "report": read_requirements("report"),
        "tests": read_requirements("tests"),
    },
    keywords=["video", "action recognition", "non-local", "attention", "openmmlab"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
