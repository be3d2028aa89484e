"""How well policies fly: suites, metrics with intervals, figures, a report."""

from raptor.environments.rollout import Policy
from raptor.evaluation.evaluator import evaluate
from raptor.evaluation.results import Evaluation
from raptor.evaluation.statistics import METRICS, Estimate, bootstrap_means
from raptor.evaluation.suites import ALL_SUITES, GIVEN_SUITES, SUITES, TEST_SEEDS

__all__ = ["ALL_SUITES", "GIVEN_SUITES", "METRICS", "SUITES", "TEST_SEEDS", "Estimate", "Evaluation", "Policy"]
__all__ += ["bootstrap_means", "evaluate"]
