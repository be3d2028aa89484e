"""Third-party vector environments: the contract, which is that of rsl_rl's `VecEnv`, and its check."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from raptor.core.errors import UserError

DEFAULT_GROUP = "policy"


class VecEnv(Protocol):
    """N environments that step at once; an episode that ends begins anew within the step that ended it.

    An environment may also offer `reset()`, better `reset(seed=...)`, `render()` and `close()`.
    """

    num_envs: int  # N
    num_actions: int  # A
    max_episode_length: Any  # the most steps of an episode, or (N,) of them
    episode_length_buf: Tensor  # (N,) int64, steps of the present episodes; may be assigned to
    device: Any  # of all tensors
    cfg: Any  # settings, of whatever type; they are noted in the run

    def get_observations(self) -> Any:
        """Groups of observations by name, (N, D) each, as a mapping; or rsl_rl 2's pair of `policy` and extras."""

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, Mapping[str, Any]]:
        """Apply (N, A) actions; returns observations, rewards (N,), whether episodes ended (N,), and extras.

        `extras["time_outs"]`, (N,), marks the ends that are no failures. `extras["ignored"]`, (N,), marks actions that
        were not applied, because the step did nothing but begin an episode.
        """


class VecStep(NamedTuple):
    """Result of one step of N environments."""

    observations: dict[str, Tensor]  # (N, D) each; where an episode ended, the first of the new one
    reward: Tensor  # (N,)
    done: Tensor  # (N,) bool
    timed_out: Tensor  # (N,) bool; the episode ended because its time was over
    ignored: Tensor  # (N,) bool; the action was not applied, the step only began an episode


class CheckedVecEnv:
    """An environment that is checked against the contract in every step; its tensors come on `device`, or its own.

    Refused are attributes that are missing or impossible, wrong shapes, numbers that are not finite, and episodes that
    do not begin anew or never end; errors say what was expected.
    """

    def __init__(self, env: VecEnv, device: torch.device | str | None = None) -> None:
        self.env = env
        self.num_envs, self.num_actions = self._whole("num_envs"), self._whole("num_actions")
        self.env_device = torch.device(self._attribute("device"))
        self.device = self.env_device if device is None else torch.device(device)
        longest = torch.as_tensor(self._attribute("max_episode_length"))
        wanted = f"must be at least 1, or a tensor of {self.num_envs} such numbers, got {longest.tolist()}"
        fits = longest.shape in ((), (self.num_envs,)) and bool((longest >= 1).all())
        _require(fits, f"max_episode_length of the environment {wanted}")
        self.max_episode_length = longest.long().to(self.device)
        self.episode_steps = int(longest.max())
        """The most steps that any episode has."""
        self.steps = self._lengths()
        """(N,) int64, steps of the present episodes."""
        self._watched: tuple[str, ...] = ()
        self._shapes = {name: tuple(group.shape) for name, group in self._named(env.get_observations()).items()}

    @property
    def widths(self) -> dict[str, int]:
        """D of every group of observations that is (N, D)."""
        return {name: shape[1] for name, shape in self._shapes.items() if len(shape) == 2}

    @property
    def seedable(self) -> bool:
        """Whether `reset` of the environment takes a seed."""
        parameters = inspect.signature(getattr(self.env, "reset", lambda: None)).parameters.values()
        return any(p.name == "seed" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)

    def watch(self, *groups: str) -> None:
        """Return only these groups of observations from now on."""
        for name in groups:
            choice = f"choose among {self.layout()}"
            _require(name in self._shapes, f"the environment shows no group {name!r}: {choice}")
            wanted = f"has the shape {self._shapes[name]}, but a policy needs (num_envs, width)"
            _require(name in self.widths, f"the group {name!r} {wanted}: {choice}")
        self._watched = groups

    def layout(self) -> str:
        """The groups with their widths, in words."""
        return ", ".join(f"{name} ({width})" for name, width in self.widths.items()) or "no groups at all"

    def begin(self, seed: int) -> None:
        """Begin every episode anew, from the seed where the environment takes one; go on where it has no `reset`."""
        reset: Callable[..., Any] | None = getattr(self.env, "reset", None)
        if reset is not None:
            reset(seed=seed) if self.seedable else reset()
            self.env.episode_length_buf = torch.zeros_like(self.env.episode_length_buf)  # some spread them at random
        self.steps = self._lengths()

    def observe(self) -> dict[str, Tensor]:
        """The present observations."""
        observations = self._observations(self.env.get_observations())
        self._problems(observations)
        return observations

    def step(self, action: Tensor) -> VecStep:
        """Apply actions (N, A)."""
        before = self.env.episode_length_buf.clone().to(self.device)
        answer: Any = self.env.step(action.to(self.env_device))
        got = len(answer) if isinstance(answer, tuple) else type(answer).__name__
        wanted = "must return (observations, rewards, dones, extras)"
        _require(got == 4, f"step of the environment {wanted}, got {got} instead of 4 values")
        shown, reward, done, extras = answer
        observations = self._observations((shown, extras) if isinstance(shown, Tensor) else shown)
        reward, done = self._vector(reward, "rewards"), self._vector(done, "dones").bool()

        def flags(name: str, otherwise: Tensor) -> Tensor:
            return self._vector(extras[name], f"extras[{name!r}]").bool() if name in extras else otherwise

        ignored = flags("ignored", torch.zeros_like(done))
        count = self.steps + (~ignored)
        timed_out = flags("time_outs", count >= self.max_episode_length)
        after = self._lengths()
        goes_on = done & (after == before + 1) & ~ignored
        found = self._problems(
            observations,
            goes_on=goes_on.any() & (~done.all() | goes_on.all()),
            never_ends=(~done & (count > self.max_episode_length)).any(),
            rewards=~reward.isfinite().all(),
            spread=(done & (after != 0)).any(),
        )
        if "goes_on" in found:
            number = int((done & (after > 0)).nonzero()[0])
            raise UserError(
                f"environment {number} said that its episode was over, but its episode_length_buf went on to "
                f"{int(after[number])}: an episode that ends must begin anew within the same step, with "
                "episode_length_buf 0"
            )
        most = f"max_episode_length, which is {self.episode_steps}"
        remedy = "the environment must end it, say so in dones, and begin anew within the same step"
        _require("never_ends" not in found, f"an episode went on beyond {most}: {remedy}")
        if "spread" in found:
            # Those that all ended at once may begin as if they had lasted a while; but whole episodes are to follow.
            lengths = self.env.episode_length_buf
            self.env.episode_length_buf = lengths.masked_fill(done.to(lengths.device), 0)
        self.steps = count.masked_fill(done, 0)
        return VecStep(observations, reward, done, timed_out & done, ignored)

    def _problems(self, observations: Mapping[str, Tensor], **problems: Tensor) -> set[str]:
        """Names of the problems that occurred, after waiting for the device once; refuses what is not finite."""
        finite = {f"observations {name!r}": ~group.isfinite().all() for name, group in observations.items()}
        flags = {**problems, **finite}
        found = {name for name, flag in zip(flags, torch.stack([*flags.values()]).tolist(), strict=True) if flag}
        for name in ("rewards", *finite):
            text = f"{name} of the environment must be finite, got NaN or infinite numbers: correct its task"
            _require(name not in found, text)
        return found

    def _observations(self, shown: Any) -> dict[str, Tensor]:
        groups = self._named(shown)
        names = self._watched or tuple(self.widths)
        for name in names:
            wanted, got = self._shapes[name], tuple(groups[name].shape) if name in groups else "nothing"
            rule = f"must have the shape {wanted} at every step, got {got}"
            _require(got == wanted, f"the observations {name!r} of the environment {rule}")
        return {name: groups[name].to(self.device, torch.float32) for name in names}

    def _named(self, shown: Any) -> dict[str, Tensor]:
        """Groups by name, in whichever form an environment returns them."""
        if isinstance(shown, tuple):  # rsl_rl 2: what the policy sees, and the rest among the extras
            policy, extras = shown
            shown = {DEFAULT_GROUP: policy, **extras.get("observations", {})}
        rule = f"must return groups of tensors by name, got {type(shown).__name__}"
        _require(hasattr(shown, "keys"), f"get_observations of the environment {rule}")
        groups = {str(name): shown[name] for name in shown.keys()}  # noqa: SIM118 - a TensorDict iterates over its rows
        groups = {name: group for name, group in groups.items() if isinstance(group, Tensor)}
        for name, group in groups.items():
            rule = f"must have {self.num_envs} rows, one for each environment, got the shape {tuple(group.shape)}"
            _require(group.shape[:1] == (self.num_envs,), f"the observations {name!r} of the environment {rule}")
        return groups

    def _vector(self, tensor: Any, what: str) -> Tensor:
        got = tuple(tensor.shape) if isinstance(tensor, Tensor) else None
        shown = f"a {type(tensor).__name__}" if got is None else f"the shape {got}"
        rule = f"must be a tensor of shape ({self.num_envs},), got {shown}"
        _require(got == (self.num_envs,), f"{what} of the environment {rule}")
        return tensor.to(self.device)  # type: ignore[no-any-return]

    def _lengths(self) -> Tensor:
        return self._vector(self._attribute("episode_length_buf"), "episode_length_buf").long().clone()

    def _attribute(self, name: str) -> Any:
        contract = f"which every VecEnv has: see {VecEnv.__module__}.VecEnv"
        _require(hasattr(self.env, name), f"the environment {type(self.env).__name__} has no {name}, {contract}")
        return getattr(self.env, name)

    def _whole(self, name: str) -> int:
        value = self._attribute(name)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise UserError(f"{name} of the environment must be a whole number of at least 1, got {value!r}")
        return int(value)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UserError(otherwise)
