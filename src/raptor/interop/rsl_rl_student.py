"""Our recurrent policy and our teachers in rsl_rl's own algorithms, named in their configuration.

student: {class_name: "raptor.interop.rsl_rl_student:RaptorStudent"}
teacher: {class_name: "raptor.interop.rsl_rl_student:TeacherModel", teachers: runs/teachers}
algorithm: {class_name: "raptor.interop.rsl_rl_student:PopulationDistillation"}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raptor.core.atomic import PathLike
from raptor.core.errors import MissingExtraError, UserError
from raptor.formats.checkpoint import save_policy
from raptor.formats.teacher_files import load_teachers
from raptor.nn.policy import RaptorPolicy
from raptor.nn.teachers import TeacherPopulation

try:
    from rsl_rl.algorithms import Distillation
    from rsl_rl.models import RNNModel
    from rsl_rl.modules import RNN
    from rsl_rl.modules.distribution import GaussianDistribution
except ImportError as error:
    raise MissingExtraError("rsl-rl-lib 5.0 or newer", "rsl", "distillation by rsl_rl") from error

Groups = Mapping[str, Tensor]  # observations (N, D) by group; rsl_rl passes a TensorDict


class RaptorStudent(RNNModel):
    """`RaptorPolicy` as a model of rsl_rl, for distillation and as PPO's actor.

    `hidden_dim` is the width of both hidden layers, `distribution_cfg` the noise of the actions in training, by default
    Gaussian of 0.1, which distillation does not change; the other arguments are those of rsl_rl's models.
    """

    def __init__(
        self,
        obs: Groups,
        obs_groups: dict[str, list[str]],
        obs_set: str,
        output_dim: int,
        hidden_dim: int = 16,
        distribution_cfg: dict[str, Any] | None = None,
    ) -> None:
        noise = distribution_cfg or {"class_name": GaussianDistribution, "init_std": 0.1}
        super().__init__(
            obs, obs_groups, obs_set, output_dim, distribution_cfg=noise, rnn_type="gru", rnn_hidden_dim=hidden_dim
        )
        self.dimensions = (self.obs_dim, hidden_dim, output_dim)
        policy = RaptorPolicy(*self.dimensions)
        # The library passes every observation through obs_normalizer before the recurrent layer, in exports too.
        self.obs_normalizer = nn.Sequential(policy.input_layer, nn.ReLU())
        self.rnn = RNN(hidden_dim, hidden_dim, 1, "gru")
        self.rnn.rnn = policy.gru
        self.mlp = policy.output_layer

    def to_policy(self) -> RaptorPolicy:
        """A copy of the network as a policy of this package, on the CPU."""
        policy = RaptorPolicy(*self.dimensions)
        policy.input_layer.load_state_dict(self.obs_normalizer[0].state_dict())
        policy.gru.load_state_dict(self.rnn.rnn.state_dict())
        policy.output_layer.load_state_dict(self.mlp.state_dict())
        return policy

    def save(self, path: PathLike, card: Mapping[str, Any] | None = None) -> None:
        """Write the network as a policy file, for `raptor evaluate` and `raptor export`; see `raptor.save_policy`."""
        described = {"what": "a recurrent student", "training": "distilled with rsl_rl"}
        save_policy(self.to_policy(), path, described | dict(card or {}))


class TeacherModel(nn.Module):
    """T teachers as one model of rsl_rl: each acts for its own environments, and none of them is trained.

    Environment i belongs to teacher i modulo T, as in `RslRlVecEnv(quadrotor=teachers.quadrotors)`. `teachers` is a
    population or the folder of one; the other arguments are those of rsl_rl's models.
    """

    is_recurrent = False

    def __init__(
        self,
        obs: Groups,
        obs_groups: dict[str, list[str]],
        obs_set: str,
        output_dim: int,
        teachers: PathLike | TeacherPopulation,
    ) -> None:
        super().__init__()
        self.teachers = teachers if isinstance(teachers, TeacherPopulation) else load_teachers(teachers)
        self.obs_groups = obs_groups[obs_set]
        num_envs, width = self._observation(obs).shape
        if (width, output_dim) != (self.teachers.observation_dim, self.teachers.action_dim):
            theirs = f"see {self.teachers.observation_dim} numbers and give {self.teachers.action_dim}"
            ours = f"the groups {', '.join(self.obs_groups)} have {width} and an action has {output_dim}"
            raise UserError(f"the teachers {theirs}, but {ours}: choose other groups for the set {obs_set!r}")
        if num_envs % len(self.teachers):
            unfit = f"{len(self.teachers)} teachers cannot share {num_envs} environments evenly"
            raise UserError(f"{unfit}: make num_envs a multiple")

    def forward(self, obs: Groups) -> Tensor:
        """Actions (N, A) of the teachers, each for its own environments."""
        observation = self._observation(obs)
        if observation.device != self.teachers.device:
            self.teachers = self.teachers.to(observation.device)
        own = observation.reshape(-1, len(self.teachers), observation.shape[-1]).transpose(0, 1)
        with torch.no_grad():
            return self.teachers(own).transpose(0, 1).reshape(len(observation), -1)

    def reset(self, dones: Tensor | None = None, hidden_state: None = None) -> None:
        """Do nothing: there is no memory."""

    def get_hidden_state(self) -> None:
        """None: there is no memory."""
        return

    def get_extra_state(self) -> dict[str, Any]:
        """Number and widths of the teachers, for a checkpoint; their weights stay in their own folder."""
        return {"num_teachers": len(self.teachers), "widths": list(self.teachers.widths)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Check that a checkpoint was made with such teachers."""
        if dict(state) != self.get_extra_state():
            ours = self.get_extra_state()
            raise UserError(f"the checkpoint was made with other teachers, {state}: give those, not {ours}")

    def _observation(self, obs: Groups) -> Tensor:
        return torch.cat([obs[group] for group in self.obs_groups], dim=-1)


class PopulationDistillation(Distillation):
    """rsl_rl's distillation for teachers that come with their weights."""

    teacher_loaded = True
