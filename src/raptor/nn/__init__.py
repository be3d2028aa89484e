"""Networks: the recurrent policy, the memoryless one, the teachers."""

from raptor.nn.activations import Activations
from raptor.nn.expert import ExpertNetwork, Normalizer
from raptor.nn.policy import MLPPolicy, RaptorPolicy
from raptor.nn.teachers import TeacherPopulation

__all__ = ["Activations", "ExpertNetwork", "MLPPolicy", "Normalizer", "RaptorPolicy", "TeacherPopulation"]
