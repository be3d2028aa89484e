"""How well policies fly: suites, metrics with intervals, figures, a report."""

from raptor.environments.rollout import Policy
from raptor.evaluation.evaluator import SUITES, TEST_SEEDS, evaluate
from raptor.evaluation.results import METRICS, Estimate, Evaluation, bootstrap_means

__all__ = ["METRICS", "SUITES", "TEST_SEEDS", "Estimate", "Evaluation", "Policy", "bootstrap_means", "evaluate"]
