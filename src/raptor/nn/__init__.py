"""Networks: the recurrent policy, the memoryless one, the teachers, and the files that hold them."""

from raptor.nn.activations import Activations
from raptor.nn.cards import CARD_FIELDS, format_card
from raptor.nn.expert import ExpertNetwork, Normalizer
from raptor.nn.expert_files import load_expert
from raptor.nn.files import POLICY_NAMES, load_policy, policy_card, read_checkpoint, save_policy
from raptor.nn.mlp_policy import MLPParameters, MLPPolicy, mlp_step
from raptor.nn.onnx_policy import OnnxPolicy
from raptor.nn.policy import PolicyParameters, RaptorPolicy, policy_step
from raptor.nn.rl_tools_teacher import write_rl_tools_teacher
from raptor.nn.teacher_files import load_teachers
from raptor.nn.teachers import TeacherPopulation

__all__ = [
    "CARD_FIELDS",
    "POLICY_NAMES",
    "Activations",
    "ExpertNetwork",
    "MLPParameters",
    "MLPPolicy",
    "Normalizer",
    "OnnxPolicy",
    "PolicyParameters",
    "RaptorPolicy",
    "TeacherPopulation",
    "format_card",
    "load_expert",
    "load_policy",
    "load_teachers",
    "mlp_step",
    "policy_card",
    "policy_step",
    "read_checkpoint",
    "save_policy",
    "write_rl_tools_teacher",
]
