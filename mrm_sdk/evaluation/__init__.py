"""The experiment: how well a bundle or a method serves users that no fit has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrm_sdk.lazy import lazy_exports

if TYPE_CHECKING:
    from mrm_sdk.evaluation.comparison import Standings, compare
    from mrm_sdk.evaluation.method import FittedMethod
    from mrm_sdk.evaluation.methods import METHODS
    from mrm_sdk.evaluation.protocol import Report, evaluate
    from mrm_sdk.evaluation.reports.comparison import comparison_page, comparison_table
    from mrm_sdk.evaluation.reports.evaluation import evaluation_table, save_evaluation

__all__ = [
    "METHODS",
    "FittedMethod",
    "Report",
    "Standings",
    "compare",
    "comparison_page",
    "comparison_table",
    "evaluate",
    "evaluation_table",
    "save_evaluation",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "FittedMethod": "mrm_sdk.evaluation.method",
        "METHODS": "mrm_sdk.evaluation.methods",
        "Report": "mrm_sdk.evaluation.protocol",
        "Standings": "mrm_sdk.evaluation.comparison",
        "compare": "mrm_sdk.evaluation.comparison",
        "comparison_page": "mrm_sdk.evaluation.reports.comparison",
        "comparison_table": "mrm_sdk.evaluation.reports.comparison",
        "evaluate": "mrm_sdk.evaluation.protocol",
        "evaluation_table": "mrm_sdk.evaluation.reports.evaluation",
        "save_evaluation": "mrm_sdk.evaluation.reports.evaluation",
    },
)
