"""Networks: the recurrent policy, the memoryless one, the teachers, and the files that hold them."""

from raptor.nn.cards import CARD_FIELDS, format_card
from raptor.nn.files import POLICY_NAMES, load_policy, policy_card, read_checkpoint, save_policy
from raptor.nn.mlp_policy import MLPParameters, MLPPolicy, mlp_step
from raptor.nn.onnx_policy import OnnxPolicy
from raptor.nn.policy import PolicyParameters, RaptorPolicy, policy_step
from raptor.nn.teacher_files import load_teachers
from raptor.nn.teachers import TeacherPopulation

__all__ = [
    "CARD_FIELDS",
    "POLICY_NAMES",
    "MLPParameters",
    "MLPPolicy",
    "OnnxPolicy",
    "PolicyParameters",
    "RaptorPolicy",
    "TeacherPopulation",
    "format_card",
    "load_policy",
    "load_teachers",
    "mlp_step",
    "policy_card",
    "policy_step",
    "read_checkpoint",
    "save_policy",
]
