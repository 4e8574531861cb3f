"""Where a block looks: what each position contributes to the update of a chosen one."""

from polynl_mm.analysis.influence.contributions import Contributions, contributions

__all__ = ["Contributions", "contributions"]
