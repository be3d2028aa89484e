"""Every file that a policy or a teacher comes in."""

from raptor.formats.checkpoint import CARD_FIELDS, format_card, read_checkpoint, save_policy
from raptor.formats.expert_files import load_expert
from raptor.formats.onnx_policy import OnnxPolicy
from raptor.formats.policy_files import POLICY_NAMES, load_policy, policy_card
from raptor.formats.rl_tools import write_rl_tools_teacher
from raptor.formats.teacher_files import load_teachers, save_teachers

__all__ = [
    "CARD_FIELDS",
    "POLICY_NAMES",
    "OnnxPolicy",
    "format_card",
    "load_expert",
    "load_policy",
    "load_teachers",
    "policy_card",
    "read_checkpoint",
    "save_policy",
    "save_teachers",
    "write_rl_tools_teacher",
]
