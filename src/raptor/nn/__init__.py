"""Networks: the recurrent policy, the memoryless one, the teachers."""

from raptor.nn.activations import Activations
from raptor.nn.expert import ExpertNetwork, Normalizer
from raptor.nn.policy import (
    MLPParameters,
    MLPPolicy,
    PolicyParameters,
    RaptorPolicy,
    gru_gates,
    mlp_step,
    policy_step,
)
from raptor.nn.teachers import TeacherPopulation

__all__ = [
    "Activations",
    "ExpertNetwork",
    "MLPParameters",
    "MLPPolicy",
    "Normalizer",
    "PolicyParameters",
    "RaptorPolicy",
    "TeacherPopulation",
    "gru_gates",
    "mlp_step",
    "policy_step",
]
