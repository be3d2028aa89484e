from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from raptor.rl.replay import Batch
from raptor.rl.sac import SAC, SACConfig, sample_action, values

OBSERVATION_DIM, ACTION_DIM, BATCH = 5, 2, 16


def config(**settings) -> SACConfig:
    return SACConfig(**{"actor_widths": (8, 8), "critic_widths": (12, 12), "batch_size": BATCH} | settings)


def agents(settings: SACConfig, num: int = 2, seed: int = 0, compile: bool = False) -> SAC:
    generator = torch.Generator().manual_seed(seed)
    return SAC(settings, num, OBSERVATION_DIM, ACTION_DIM, generator=generator, compile=compile)


def batch(num: int = 2, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn((num, BATCH, *shape), generator=generator)

    terminated = torch.rand((num, BATCH), generator=generator) < 0.3
    return Batch(
        observation=normal(OBSERVATION_DIM),
        action=torch.tanh(normal(ACTION_DIM)),
        reward=normal(),
        next_observation=normal(OBSERVATION_DIM),
        discount=torch.where(terminated, 0.0, 0.99),
        weight=torch.ones(num, BATCH),
    )


class SlowAdam:
    """Adam of rl-tools, one parameter and one number at a time."""

    def __init__(self, parameters, rate: float, floor: float = 1e-7, epsilon: float = 1e-7) -> None:
        self.parameters, self.rate, self.floor, self.epsilon, self.n = list(parameters), rate, floor, epsilon, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients) -> None:
        self.n += 1
        for p, g, (m, v) in zip(self.parameters, gradients, self.moments, strict=True):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            mean, variance = m / (1 - 0.9**self.n), v / (1 - 0.999**self.n)
            p -= self.rate * mean / (variance.clamp(min=self.floor).sqrt() + self.epsilon)


class SlowAgent:
    """Soft actor-critic of one agent with torch's own modules, written down as the formulas stand in the sources."""

    def __init__(self, sac: SAC, number: int, num: int) -> None:
        self.config = sac.config
        self.actor = self._network(sac.state.actor, number)
        self.critics = [self._network(sac.state.critics, number + twin * num) for twin in (0, 1)]
        self.targets = [self._network(sac.state.targets, number + twin * num) for twin in (0, 1)]
        self.log_alpha = torch.tensor([math.log(self.config.initial_temperature)])
        self.actor_adam = SlowAdam(self.actor.parameters(), self.config.actor_learning_rate)
        self.critic_adams = [SlowAdam(c.parameters(), self.config.critic_learning_rate) for c in self.critics]
        self.alpha_adam = SlowAdam([self.log_alpha], self.config.temperature_learning_rate)

    @staticmethod
    def _network(layers, number: int) -> nn.Sequential:
        modules: list[nn.Module] = []
        for layer in layers:
            out, fan_in = layer.weight.shape[1:]
            linear = nn.Linear(fan_in, out)
            linear.weight.data = layer.weight[number].clone()
            linear.bias.data = layer.bias[number].clone()
            modules += [linear, nn.ReLU()]
        return nn.Sequential(*modules[:-1])

    def act(self, observation, noise):
        mean, log_std = self.actor(observation).chunk(2, dim=-1)
        std = log_std.clamp(-20, 2).exp()
        normal = torch.distributions.Normal(mean, std)
        raw = mean + std * noise
        action = torch.tanh(raw)
        return action, (normal.log_prob(raw) - torch.log(1 - action**2 + 1e-6)).sum(-1)

    def update(self, b: Batch, noise, actor_noise) -> None:
        alpha = self.log_alpha.exp()
        with torch.no_grad():
            action, log_pi = self.act(b.next_observation, noise)
            following = torch.cat([b.next_observation, action], -1)
            lower = torch.minimum(*(target(following).squeeze(-1) for target in self.targets))
            bonus = -alpha * log_pi
            if self.config.entropy_bonus == "undiscounted":
                y = self.config.reward_scale * b.reward + b.discount * lower + bonus
            else:
                y = self.config.reward_scale * b.reward + b.discount * (lower + bonus)
        for critic, adam in zip(self.critics, self.critic_adams, strict=True):
            q = critic(torch.cat([b.observation, b.action], -1)).squeeze(-1)
            loss = 0.5 * (b.weight * (q - y) ** 2).mean()
            adam.step(torch.autograd.grad(loss, list(critic.parameters())))
        with torch.no_grad():
            for critic, target in zip(self.critics, self.targets, strict=True):
                for w, t in zip(critic.parameters(), target.parameters(), strict=True):
                    t.copy_((1 - self.config.polyak) * t + self.config.polyak * w)
        if actor_noise is None:
            return
        action, log_pi = self.act(b.observation, actor_noise)
        both = [critic(torch.cat([b.observation, action], -1)).squeeze(-1) for critic in self.critics]
        loss = (alpha * log_pi - torch.minimum(*both)).mean()
        gradient = torch.autograd.grad(loss, list(self.actor.parameters()))
        self.actor_adam.step(gradient)
        entropy = -log_pi.detach().mean()
        self.alpha_adam.step([alpha * (entropy - self.config.target_entropy)])


@pytest.mark.parametrize("bonus", ["undiscounted", "discounted"])
@pytest.mark.parametrize("weighted", [False, True])
def test_updates_are_those_of_an_obvious_implementation(bonus, weighted):
    sac = agents(config(entropy_bonus=bonus, reward_scale=0.5 if weighted else 1.0))
    slow = [SlowAgent(sac, number, 2) for number in range(2)]
    drawn: list[torch.Tensor] = []
    draw = sac._noise
    sac._noise = lambda: drawn.append(draw()) or drawn[-1]
    for number in range(6):
        b = batch(seed=number)
        if weighted:
            b = b._replace(weight=torch.rand(b.weight.shape, generator=torch.Generator().manual_seed(number)))
        drawn.clear()
        error, metrics = sac.update(b)
        assert (metrics is not None) == (number % 2 == 0)
        assert error.shape == (2, BATCH)
        for i, agent in enumerate(slow):
            mine = Batch(*(column[i] for column in b))
            agent.update(mine, drawn[0][i], drawn[1][i] if len(drawn) > 1 else None)
    for i, agent in enumerate(slow):
        for layer, (weight, bias) in zip(sac.state.actor, _pairs(agent.actor), strict=True):
            torch.testing.assert_close(layer.weight[i], weight, rtol=1e-4, atol=2e-6)
            torch.testing.assert_close(layer.bias[i], bias, rtol=1e-4, atol=2e-6)
        for twin in (0, 1):
            for layers, network in ((sac.state.critics, agent.critics[twin]), (sac.state.targets, agent.targets[twin])):
                for layer, (weight, _) in zip(layers, _pairs(network), strict=True):
                    torch.testing.assert_close(layer.weight[i + 2 * twin], weight, rtol=1e-4, atol=2e-6)
        assert sac.state.log_temperature[i] == pytest.approx(agent.log_alpha.item(), abs=1e-6)


def _pairs(network: nn.Sequential):
    return [(module.weight, module.bias) for module in network if isinstance(module, nn.Linear)]


def test_the_compiled_update_is_the_eager_one():
    eager, compiled = (agents(config(), compile=compile) for compile in (False, True))
    for number in range(3):
        eager.update(batch(seed=number))
        compiled.update(batch(seed=number))
    for ours, theirs in zip(compiled._leaves, eager._leaves, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_agents_do_not_touch_each_other():
    alone, beside = agents(config()), agents(config())
    one, other = batch(seed=1), batch(seed=2)
    mixed = Batch(*(torch.stack([a[0], b[1]]) for a, b in zip(one, other, strict=True)))
    alone.update(one)
    beside.update(mixed)
    assert all(
        torch.equal(a.weight[0], b.weight[0]) for a, b in zip(alone.state.actor, beside.state.actor, strict=True)
    )
    assert not torch.equal(alone.state.actor[0].weight[1], beside.state.actor[0].weight[1])


def test_what_is_not_finite_stays_with_the_agent_it_happened_to():
    sac, b = agents(config()), batch()
    b.reward[0, 0] = math.nan
    sac.update(b)
    assert sac.state.critics[0].weight[0].isnan().any()
    for place in (1, 3):
        assert sac.state.critics[0].weight[place].isfinite().all()
    assert sac.state.actor[0].weight[1].isfinite().all()


def test_the_density_of_actions_integrates_to_one():
    sac = agents(config(), num=1)
    observation = torch.zeros(1, 1, OBSERVATION_DIM)
    grid = torch.linspace(-6, 6, 801)
    noise = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(1, -1, 2)
    _, log_density = sample_action(sac.state.actor, observation.expand(1, noise.shape[1], -1), noise)
    action, _ = sample_action(sac.state.actor, observation.expand(1, noise.shape[1], -1), noise)
    side = action.reshape(801, 801, 2)
    area = (side[1:, :-1, 0] - side[:-1, :-1, 0]) * (side[:-1, 1:, 1] - side[:-1, :-1, 1])
    density = log_density.exp().reshape(801, 801)[:-1, :-1]
    assert (density * area).sum().item() == pytest.approx(1.0, abs=0.02)


def test_deterministic_teachers_give_the_squashed_mean():
    sac = agents(config())
    observation = torch.randn(2, 3, OBSERVATION_DIM, generator=torch.Generator().manual_seed(0))
    action, _ = sample_action(sac.state.actor, observation, torch.zeros(2, 3, ACTION_DIM))
    from raptor.nn.stacked_mlp import forward

    torch.testing.assert_close(torch.tanh(forward(sac.teachers(), observation)), action)


def test_both_critics_of_an_agent_judge_its_own_batch():
    sac = agents(config())
    b = batch()
    both = values(sac.state.critics, b.observation, b.action)
    assert both.shape == (2, 2, BATCH)
    slow = SlowAgent(sac, 1, 2)
    for twin in (0, 1):
        expected = slow.critics[twin](torch.cat([b.observation[1], b.action[1]], -1)).squeeze(-1)
        torch.testing.assert_close(both[twin, 1], expected)


def test_resumed_agents_go_on_as_they_would_have():
    straight, stopped = agents(config()), agents(config())
    for sac in (straight, stopped):
        sac.update(batch())
    state, noise = stopped.state_dict(), stopped.generator.get_state()
    resumed = agents(config(), seed=9)
    resumed.load_state_dict(state)
    resumed.generator.set_state(noise)
    for sac in (straight, resumed):
        sac.update(batch(seed=2))
        sac.update(batch(seed=3))
    for ours, theirs in zip(resumed._leaves, straight._leaves, strict=True):
        assert torch.equal(ours, theirs)


def test_half_precision_changes_little_and_full_precision_is_the_default():
    exact, rounded = agents(config()), agents(config(precision="bfloat16"))
    for sac in (exact, rounded):
        sac.update(batch())
    difference = (exact.state.critics[1].weight - rounded.state.critics[1].weight).abs().max()
    assert 0 < difference < 1e-3


def test_an_agent_learns_what_a_reward_asks_for():
    """Reward -(a - 0.5)^2 in a single state: the mean action goes there."""
    sac = agents(
        config(actor_learning_rate=3e-3, critic_learning_rate=3e-3, initial_temperature=0.05, target_entropy=-6.0),
        num=1,
    )
    generator = torch.Generator().manual_seed(5)
    observation = torch.zeros(1, BATCH, OBSERVATION_DIM)
    for _ in range(1200):
        action = 2 * torch.rand((1, BATCH, ACTION_DIM), generator=generator) - 1
        reward = -10 * ((action - 0.5) ** 2).sum(-1)
        zero = torch.zeros(1, BATCH)
        sac.update(Batch(observation, action, reward, observation, zero, torch.ones(1, BATCH)))
    mean, _ = sample_action(sac.state.actor, observation[:, :1], torch.zeros(1, 1, ACTION_DIM))
    assert (mean - 0.5).abs().max() < 0.25  # it began at about 0


def test_learning_rates_fall_linearly_to_their_final_share():
    falling = agents(config(final_learning_rate=0.2))
    slow = agents(config(actor_learning_rate=1.8e-4, critic_learning_rate=1.8e-4, temperature_learning_rate=6e-5))
    falling.update(batch(), torch.tensor(0.5))  # 60 % of the rates are left in the middle
    slow.update(batch())
    for ours, theirs in zip(falling._leaves, slow._leaves, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
