"""How well policies fly: suites, metrics with intervals, figures, a report."""

from raptor.environments.rollout import Policy
from raptor.evaluation.evaluator import Progress, evaluate
from raptor.evaluation.results import Evaluation
from raptor.evaluation.statistics import METRICS, Estimate, bootstrap_means
from raptor.evaluation.suites import SUITES, TEST_SEEDS

__all__ = [
    "METRICS",
    "SUITES",
    "TEST_SEEDS",
    "Estimate",
    "Evaluation",
    "Policy",
    "Progress",
    "bootstrap_means",
    "evaluate",
]
