import subprocess
import sys

import pytest

from polynl_mm.stack.missing_drn import MODULE, MissingDRNFinder, supply_missing_drn
from polynl_mm.user_errors import UserError


def test_localizers_import_and_drn_says_why_it_is_missing():
    import mmaction.models.localizers as localizers
    from mmaction.registry import MODELS

    if sys.modules[MODULE].__spec__.loader.__class__ is not MissingDRNFinder:
        pytest.skip("this mmaction2 ships DRN")
    assert hasattr(localizers, "BMN")
    with pytest.raises(UserError, match="without mmaction/models/localizers/drn"):
        MODELS.build({"type": "DRN", "feature_dim": 8})


def test_real_module_is_preferred(tmp_path):
    package = tmp_path
    for name in ("mmaction", "models", "localizers", "drn"):
        package = package / name
        package.mkdir()
        (package / "__init__.py").touch()
    (package / "drn.py").write_text("DRN = 'the real one'\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from polynl_mm.stack.missing_drn import supply_missing_drn\n"
        "supply_missing_drn()\n"
        "from mmaction.models.localizers.drn.drn import DRN; print(DRN)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("the real one"), done.stderr


def test_supplying_again_adds_nothing():
    supply_missing_drn()
    finders = [f for f in sys.meta_path if isinstance(f, MissingDRNFinder)]
    assert len(finders) == 1
    assert sys.meta_path[-1] is finders[0] or finders[0] in sys.meta_path
