"""Networks: the recurrent policy, and the files that hold it."""

from raptor.nn.cards import CARD_FIELDS, format_card
from raptor.nn.files import POLICY_NAMES, load_policy, policy_card, read_checkpoint, save_policy
from raptor.nn.onnx_policy import OnnxPolicy
from raptor.nn.policy import PolicyParameters, RaptorPolicy, policy_step

__all__ = [
    "CARD_FIELDS",
    "POLICY_NAMES",
    "OnnxPolicy",
    "PolicyParameters",
    "RaptorPolicy",
    "format_card",
    "load_policy",
    "policy_card",
    "policy_step",
    "read_checkpoint",
    "save_policy",
]
