"""Networks: the recurrent policy."""

from raptor.nn.policy import PolicyParameters, RaptorPolicy, policy_step

__all__ = ["PolicyParameters", "RaptorPolicy", "policy_step"]
