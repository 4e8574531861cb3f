"""Says in one sentence what the installed stack lacks, and the command that mends it.

Mends: mmaction2 and mmengine declare no requirement on some of what they import, and
fail, at their import or in the middle of a run, with an error that does not name it.
Nothing heavy is imported here: versions come from the installed packages' metadata.
"""

from importlib import metadata
from importlib.util import find_spec

from packaging.version import Version

# Which distributions provide a module, the first being the one to recommend.
PROVIDERS = {
    "torch": ("torch",),
    "mmengine": ("mmengine", "onedl-mmengine", "mmengine-lite"),
    "mmcv": ("mmcv-lite", "mmcv", "onedl-mmcv"),
    "mmaction": ("mmaction2", "onedl-mmaction2"),
}
TORCH_FROM = Version("2.5")
MMENGINE_RANGE = (Version("0.10"), Version("1.0"))
MMCV_FROM = Version("2.0.0rc4")
MMCV_BELOW = Version("2.2.0")
MMACTION_RANGE = (Version("1.2"), Version("1.3"))


def check_requirements() -> None:
    """Check that the packages polynl_mm stands on are there, in usable versions.

    mmaction2 may be missing (the plugins work in plain PyTorch and in the other
    OpenMMLab toolkits); what it needs is checked only where it is installed.

    Raises:
        ImportError: One sentence naming what is missing, too old or too new, and
            the pip command that mends it.
    """
    _check_torch()
    _check_mmengine()
    has_mmaction = find_spec("mmaction") is not None
    _check_mmcv(has_mmaction)
    if has_mmaction:
        _check_mmaction()


def require_mmaction2() -> None:
    """Check that mmaction2 is installed, for what cannot do without it.

    Raises:
        ImportError: If it is missing, naming the command that installs it.
    """
    if find_spec("mmaction") is None:
        raise ImportError(
            "MMAction2 is not installed, and this needs it: "
            'pip install "mmaction2==1.2.0"'
        )


def installed_version(module: str) -> Version | None:
    """Return the version of the distribution that provides a module.

    Args:
        module (str): A key of ``PROVIDERS``, such as ``"mmcv"``.

    Returns:
        Version | None: None where no known distribution provides it.
    """
    return _provider_of(module)[1]


def _check_torch() -> None:
    if find_spec("torch") is None:
        raise ImportError(
            "polynl_mm needs PyTorch, which is not installed: "
            f'pip install "torch>={TORCH_FROM}"'
        )
    version = installed_version("torch")
    if version is not None and version < TORCH_FROM:
        raise ImportError(
            f"polynl_mm needs torch >= {TORCH_FROM} to load checkpoints safely, but "
            f'{version} is installed: pip install "torch>={TORCH_FROM}"'
        )


def _check_mmengine() -> None:
    if find_spec("mmengine") is None:
        raise ImportError(
            "polynl_mm needs MMEngine, which is not installed: "
            'pip install "mmengine==0.10.7"'
        )
    version = installed_version("mmengine")
    lowest, below = MMENGINE_RANGE
    if version is not None and not lowest <= version < below:
        raise ImportError(
            f"polynl_mm needs mmengine >= {lowest}, < {below}, but {version} is "
            'installed: pip install "mmengine==0.10.7"'
        )


def _check_mmcv(has_mmaction: bool) -> None:
    if find_spec("mmcv") is None:
        raise ImportError(
            "polynl_mm needs mmcv or mmcv-lite, and neither is installed: "
            'pip install "mmcv-lite==2.1.0"'
        )
    name, version = _provider_of("mmcv")
    if version is None:
        return
    # The fork has no release that MMAction2 accepts (2.3.0 to 2.3.6).
    mend = f'pip install "{name}==2.1.0"'
    if name == "onedl-mmcv":
        mend = f'pip uninstall {name}, and pip install "mmcv-lite==2.1.0"'
    if version < MMCV_FROM:
        raise ImportError(
            f"polynl_mm needs {name} >= {MMCV_FROM}, but {version} is installed: {mend}"
        )
    if has_mmaction and version >= MMCV_BELOW:
        raise ImportError(
            f"mmaction2 accepts {name} >= {MMCV_FROM}, < {MMCV_BELOW} only, but "
            f"{version} is installed: {mend}"
        )


def _check_mmaction() -> None:
    version = installed_version("mmaction")
    lowest, below = MMACTION_RANGE
    if version is not None and not lowest <= version < below:
        raise ImportError(
            f"polynl_mm works with mmaction2 >= {lowest}, < {below}, but {version} is "
            'installed: pip install "mmaction2==1.2.0"'
        )
    if find_spec("importlib_metadata") is None:
        raise ImportError(
            "mmaction2 imports importlib_metadata, which is not installed: "
            "pip install importlib_metadata"
        )


def _provider_of(module: str) -> tuple[str, Version | None]:
    """Return the distribution that provides a module, or the usual one and None."""
    for distribution in PROVIDERS[module]:
        try:
            return distribution, Version(metadata.version(distribution))
        except metadata.PackageNotFoundError:
            continue
    return PROVIDERS[module][0], None
