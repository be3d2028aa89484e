from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.rl.replay import Batch, Experience, Replay, ReplayConfig, ReplaySizes
from raptor.rl.replay_storage import read

OBSERVATION, ACTION, GAMMA = 3, 2, 0.9


def experience(num_steps: int, teachers: int, envs: int, episode_steps: int, seed: int) -> list[Experience]:
    """Episodes that begin at different ages, terminate at random and are truncated after `episode_steps`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn((teachers, envs, *shape), generator=generator)

    age = torch.randint(episode_steps, (teachers, envs), generator=generator)
    observation, steps = normal(OBSERVATION), []
    for _ in range(num_steps):
        age = age + 1
        terminated = torch.rand((teachers, envs), generator=generator) < 0.15
        truncated = age >= episode_steps
        over, following = terminated | truncated, normal(OBSERVATION)
        steps.append(Experience(observation, normal(ACTION), normal(), terminated, truncated, following))
        observation = torch.where(over.unsqueeze(-1), normal(OBSERVATION), following)
        age = torch.where(over, 0, age)
    return steps


def window(steps: list[Experience], start: int, t: int, e: int, n: int) -> tuple[Any, ...]:
    """Observation, action, reward, next observation (None after a termination) and discount, one step at a time."""
    total, discount = 0.0, 1.0
    for step in steps[start : start + n]:
        total += discount * step.reward[t, e].item()
        discount *= GAMMA
        if step.terminated[t, e]:
            return steps[start].observation[t, e], steps[start].action[t, e], total, None, 0.0
        reached = step.next_observation[t, e]
        if step.truncated[t, e]:
            break
    return steps[start].observation[t, e], steps[start].action[t, e], total, reached, discount


def sizes(config: ReplayConfig, teachers: int, envs: int, episode_steps: int) -> ReplaySizes:
    return ReplaySizes.of(
        config,
        num_teachers=teachers,
        num_envs=envs,
        observation_dim=OBSERVATION,
        action_dim=ACTION,
        episode_steps=episode_steps,
    )


def empty(config: ReplayConfig, teachers: int, envs: int, episode_steps: int, compile: bool = False) -> Replay:
    return Replay(config, sizes(config, teachers, envs, episode_steps), gamma=GAMMA, compile=compile)


def filled(config: ReplayConfig, steps: list[Experience], episode_steps: int = 6, compile: bool = False) -> Replay:
    replay = empty(config, *steps[0].reward.shape, episode_steps, compile)
    for step in steps:
        replay.add(step)
    return replay


def gathered(replay: Replay, index: torch.Tensor) -> Batch:
    return read(replay.storage, index, replay.config.n_step, replay.gamma)


def places(replay: Replay, num_steps: int) -> dict[int, tuple[int, int]]:
    """Environment and step of each index that may be drawn."""
    slots = replay.sizes.slots
    kept = range(max(0, num_steps - slots + 1), num_steps)
    return {e * slots + step % slots: (e, step) for e in range(replay.sizes.environments) for step in kept}


def assert_as_experienced(replay: Replay, steps: list[Experience]) -> None:
    teachers, valid = replay.sizes.teachers, places(replay, len(steps))
    got = gathered(replay, torch.tensor(list(valid)).expand(teachers, -1))
    assert all(torch.isfinite(field).all() for field in got)
    for t in range(teachers):
        for b, (e, start) in enumerate(valid.values()):
            observation, action, reward, reached, discount = window(steps, start, t, e, replay.config.n_step)
            assert torch.equal(got.observation[t, b], observation)
            assert torch.equal(got.action[t, b], action)
            assert got.reward[t, b].item() == pytest.approx(reward, rel=1e-5, abs=1e-5)
            assert got.discount[t, b].item() == pytest.approx(discount, rel=1e-6)
            assert reached is None or torch.equal(got.next_observation[t, b], reached)


@pytest.mark.parametrize(("teachers", "envs", "n"), [(1, 1, 1), (2, 3, 1), (1, 3, 3), (2, 1, 5), (2, 3, 5)])
def test_every_kept_transition_is_given_back_as_it_was_experienced_after_each_step(teachers, envs, n):
    steps = experience(45, teachers, envs, episode_steps=4, seed=n)
    assert any((step.truncated & step.terminated).any() for step in steps)
    replay = empty(ReplayConfig(capacity=11 * envs, n_step=n), teachers, envs, 4)
    for i, step in enumerate(steps):
        replay.add(step)
        assert len(places(replay, i + 1)) == envs * min(i + 1, 11)
        assert_as_experienced(replay, steps[: i + 1])


@settings(max_examples=40)
@given(
    envs=st.integers(1, 3),
    capacity=st.integers(1, 25),
    n=st.integers(1, 6),
    episode_steps=st.integers(1, 7),
    num_steps=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_no_size_of_ring_and_length_of_episode_mixes_transitions_up(envs, capacity, n, episode_steps, num_steps, seed):
    steps = experience(num_steps, 1, envs, episode_steps, seed)
    assert_as_experienced(filled(ReplayConfig(capacity=capacity, n_step=n), steps, episode_steps), steps)


@pytest.mark.parametrize("num_steps", [5, 9, 30])
def test_uniform_samples_take_every_kept_transition_of_every_teacher_equally_often(num_steps, generator):
    replay = filled(ReplayConfig(capacity=27), experience(num_steps, 2, 3, 6, seed=0))
    valid, num = list(places(replay, num_steps)), 60_000
    batch, drawn = replay.sample(num, generator)
    assert (batch.weight == 1).all()
    assert not torch.equal(drawn[0], drawn[1])
    for index in drawn:
        counts = torch.bincount(index, minlength=max(valid) + 1)[valid]
        assert counts.sum() == num
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_sample_is_what_the_storage_holds_at_its_places(generator):
    for kind in ("uniform", "prioritised"):
        replay = filled(ReplayConfig(kind, capacity=20, n_step=3), experience(30, 2, 2, 6, seed=1))
        batch, index = replay.sample(16, generator)
        assert all(torch.equal(a, b) for a, b in zip(batch[:5], gathered(replay, index)[:5], strict=True))


def prioritised(num_steps: int = 40, **settings: Any) -> tuple[Replay, torch.Tensor, torch.Tensor]:
    """A replay whose transitions all have an error, the indices (B,) and the errors (2, B)."""
    config = ReplayConfig("prioritised", capacity=60, **settings)
    replay = filled(config, experience(num_steps, 2, 3, 6, seed=2))
    index = torch.tensor(list(places(replay, num_steps)))
    error = torch.randn(2, len(index), generator=torch.Generator().manual_seed(3)) * 3
    replay.update_priorities(index.expand(2, -1), error)
    return replay, index, error


def test_prioritised_samples_take_transitions_in_proportion_to_their_priority(generator):
    replay, index, error = prioritised(alpha=0.7, epsilon=0.01)
    batch_size, rounds = 50, 400
    counts = torch.zeros(2, int(index.max()) + 1)
    for _ in range(rounds):
        _, drawn = replay.sample(batch_size, generator)
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float32))
    share = (error.abs() + 0.01) ** 0.7
    expected = batch_size * share / share.sum(-1, keepdim=True)
    assert torch.equal(counts.sum(-1), counts[:, index].sum(-1))
    # In each round a leaf comes up floor(x), ceil(x) or, over two borders, one more or fewer times than expected.
    assert ((counts[:, index] / rounds - expected).abs() < 5 * (expected.clamp(max=1) / rounds).sqrt()).all()


def test_one_draw_falls_in_each_equal_part_of_the_total(generator):
    replay, index, error = prioritised(alpha=1.0)
    ends = torch.zeros(2, 63, dtype=torch.float64)
    ends[:, index] = error.abs().double() + 1e-6
    ends = ends.cumsum(-1)
    starts, num = torch.cat([torch.zeros(2, 1), ends[:, :-1]], dim=-1), 32
    _, drawn = replay.sample(num, generator)
    low = torch.arange(num) / num * ends[:, -1:]
    high = (torch.arange(num) + 1) / num * ends[:, -1:]
    assert (ends.gather(-1, drawn) >= low - 1e-4).all()
    assert (starts.gather(-1, drawn) <= high + 1e-4).all()


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 0.5), (0.5, 0.7), (1.0, 0.9), (1.5, 0.9)])
def test_importance_weights_undo_the_priorities_with_an_exponent_that_is_annealed(progress, beta, generator):
    replay, index, error = prioritised(alpha=0.7, beta=(0.5, 0.9))
    priority = torch.zeros(2, 63)
    priority[:, index] = (error.abs() + 1e-6) ** 0.7
    state = generator.get_state()
    batch, drawn = replay.sample(16, generator, progress)
    probability = priority.gather(-1, drawn) / priority.sum(-1, keepdim=True)
    expected = (len(index) * probability) ** -beta
    torch.testing.assert_close(batch.weight, expected / expected.amax(-1, keepdim=True), rtol=1e-4, atol=0)
    again, _ = replay.sample(16, generator.set_state(state), torch.tensor(progress))
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))


def test_new_transitions_get_the_largest_priority_their_teacher_has_seen():
    replay = filled(ReplayConfig("prioritised", capacity=60, alpha=1.0), experience(4, 2, 3, 6, seed=0))
    index = torch.zeros(2, 1, dtype=torch.int64)
    assert (replay.priorities[-1].sum(-1) == 4 * 3).all()
    replay.update_priorities(index, torch.tensor([[5.0], [0.1]]))
    replay.update_priorities(index, torch.tensor([[0.5], [0.2]]))
    replay.add(experience(1, 2, 3, 6, seed=1)[0])
    new = torch.tensor([e * replay.sizes.slots + 4 for e in range(3)]).expand(2, -1)
    torch.testing.assert_close(replay.priorities[0].gather(-1, new), torch.tensor([[5.0], [1.0]]).expand(2, 3))


def test_an_error_that_is_not_finite_counts_as_the_largest_and_spoils_nothing(generator):
    replay, index, _ = prioritised(alpha=1.0)
    largest = replay.priorities[0].amax(-1).clamp(min=1)
    replay.update_priorities(index[:2].expand(2, -1), torch.tensor([[torch.nan, torch.inf]] * 2))
    torch.testing.assert_close(replay.priorities[0].gather(-1, index[:2].expand(2, -1)), largest[:, None].expand(2, 2))
    assert all(torch.isfinite(field).all() for field in replay.sample(16, generator)[0])


def test_a_transition_overwritten_before_its_priority_arrives_is_not_drawn(generator):
    replay, index, error = prioritised()
    for step in experience(3, 2, 3, 6, seed=4):
        replay.add(step)
        replay.update_priorities(index.expand(2, -1), error.abs() + 100)
        _, drawn = replay.sample(200, generator)
        assert (drawn % replay.sizes.slots != replay.storage.cursor).all()


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_compiled_and_eager_replays_agree(kind):
    # So many leaves that the tree is recomputed by index, and so few that the ring is full.
    config, steps = ReplayConfig(kind, capacity=240, n_step=2), experience(150, 2, 2, 6, seed=5)
    batches: list[Batch] = []
    for compile in (False, True):
        replay, generator = filled(config, steps, compile=compile), torch.Generator().manual_seed(0)
        for step in steps[:20]:
            replay.add(step)
            batch, index = replay.sample(4, generator)
            replay.update_priorities(index, batch.reward)
        batches.append(batch)
    for eager, compiled in zip(*batches, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_steps", [0, 3, 40])
@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_a_resumed_replay_goes_on_exactly_as_the_one_that_was_stored(kind, num_steps):
    config, steps = ReplayConfig(kind, capacity=60, n_step=3), experience(70, 2, 3, 6, seed=6)
    first = empty(config, 2, 3, 6)
    other = filled(config, experience(50, 2, 3, 6, seed=7))
    generator = torch.Generator().manual_seed(0)
    for step in steps[:num_steps]:
        first.add(step)
        _, index = first.sample(4, generator)
        first.update_priorities(index, torch.randn(2, 4, generator=generator))
    other.load_state_dict(first.state_dict())
    streams = []
    for replay in (first, other):
        generator = torch.Generator().manual_seed(1)
        for step in steps[num_steps:]:
            batch, index = replay.sample(8, generator)
            replay.update_priorities(index, batch.reward)
            replay.add(step)
            streams.append((*batch, index))
    half = len(streams) // 2
    for a, b in zip(streams[:half], streams[half:], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_early_checkpoint_holds_only_what_is_filled():
    replay = filled(ReplayConfig("prioritised", capacity=3000), experience(5, 2, 3, 6, seed=0))
    stored = sum(tensor.untyped_storage().nbytes() for tensor in replay.state_dict().values())
    assert stored < replay.nbytes / 50


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    replay = filled(ReplayConfig(capacity=60), experience(30, 2, 3, 6, seed=0))
    state = replay.state_dict()
    others = {
        "sizes": filled(ReplayConfig(capacity=90), experience(3, 2, 3, 6, seed=1)).state_dict(),
        "replay.kind": filled(ReplayConfig("prioritised", capacity=60), experience(3, 2, 3, 6, seed=1)).state_dict(),
        "action of the": {**state, "action": state["action"][:, :, 1:]},
        "cursor": {**state, "cursor": torch.tensor(21)},
        "filled": {**state, "filled": torch.tensor([3])},
        "following": {**state, "following": state["following"] + 1000},
    }
    for message, other in others.items():
        with pytest.raises(UserError, match=message):
            replay.load_state_dict(other)
    assert all(torch.equal(tensor, state[name]) for name, tensor in replay.state_dict().items())


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("capacity", [1, 70, 5000])
def test_the_memory_that_is_announced_is_the_memory_that_is_taken(kind, precision, capacity):
    config = ReplayConfig(kind, capacity, precision=precision)
    replay = empty(config, 2, 3, 50)
    announced = Replay(config, replay.sizes, gamma=GAMMA, device="meta").nbytes
    tensors = [*replay.storage, *replay.priorities]
    taken = sum(tensor.untyped_storage().nbytes() for tensor in tensors) + (8 if replay.priorities else 0)
    assert announced == replay.nbytes == taken


def test_observations_in_half_precision_come_back_rounded_and_finite():
    steps = experience(10, 1, 2, 6, seed=0)
    steps[3] = steps[3]._replace(observation=torch.full((1, 2, OBSERVATION), -1e6))
    half = filled(ReplayConfig(capacity=40, precision="float16"), steps)
    full = filled(ReplayConfig(capacity=40), steps)
    index = torch.tensor([[0, 1, 2, 4, 5, 6]])
    rounded, exact = (gathered(replay, index).observation for replay in (half, full))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=1e-3)
    assert (gathered(half, torch.tensor([[3]])).observation == -65504).all()


def test_observations_in_another_memory_layout_are_stored_alike():
    steps = experience(12, 2, 3, 6, seed=0)
    turned = [Experience(*(x.mT.contiguous().mT for x in step)) for step in steps]
    assert not turned[0].observation.is_contiguous()
    assert_as_experienced(filled(ReplayConfig(capacity=60), turned), steps)


def test_a_kind_that_does_not_exist_is_refused_by_name():
    with pytest.raises(UserError, match=r"kind must be one of uniform, prioritised, got .*priority"):
        load_config(ReplayConfig, overrides=["kind=priority"])
    with pytest.raises(UserError, match="n_step must be at least 1, got 0"):
        ReplayConfig(n_step=0)
