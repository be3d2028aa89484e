"""Teachers by soft actor-critic: when they update, that they learn, go on exactly, and contain what blows up."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from raptor.config import from_dict
from raptor.nn.stacked_mlp import forward
from raptor.quadrotor import sample_quadrotors
from raptor.rl.curriculum import Curriculum, CurriculumConfig, Stage
from raptor.rl.replay_storage import read
from raptor.tasks.reward import Termination
from raptor.tasks.task import Task
from raptor.training.teachers.sac import SACTeachers, SACTeachersConfig

NUM = 2
TASK = Task(episode_steps=10)
SMALL = {
    "num_steps": 60,
    "num_envs": 1,
    "start_steps": 20,
    "updates_per_step": 1,
    "block_steps": 5,
    "batch_size": 8,
    "actor_widths": [8],
    "critic_widths": [8],
    "reward_scale": 1.0,
}


def learner(seed: int = 0, capacity: int = 40, kind: str = "uniform", **settings: Any) -> SACTeachers:
    document = {**SMALL, "replay": {"capacity": capacity, "kind": kind}, **settings}
    curriculum = Curriculum(CurriculumConfig(stages=(Stage("task"),)), TASK, NUM)
    config = from_dict(SACTeachersConfig, document)
    return SACTeachers(config, TASK, sample_quadrotors(NUM, seed=2), curriculum, seed, compile=False)


def block(teachers: SACTeachers) -> dict[str, torch.Tensor]:
    """Go on to the end of a block."""
    while (figures := teachers.update()) is None:
        assert 0 < teachers.fraction < 1
    return figures


def leaves(teachers: SACTeachers) -> list[torch.Tensor]:
    return [*teachers.agents._leaves, *teachers.replay._state, *teachers.collector.state_dict()["carried"]]


def test_nothing_is_learnt_before_the_first_steps_are_flown() -> None:
    teachers = learner(num_envs=2, updates_per_step=3)
    before = [tensor.clone() for tensor in teachers.agents._leaves]
    assert block(teachers) == {}
    assert (teachers.env_steps, teachers.step_count, teachers.config.num_blocks) == (10, 1, 6)
    assert all(torch.equal(a, b) for a, b in zip(teachers.agents._leaves, before, strict=True))
    assert block(teachers) == {}
    assert teachers.agents.update_count == 0
    metrics = block(teachers)
    assert teachers.agents.update_count == 5 * 3
    assert set(metrics) == {"critic_loss", "actor_loss", "entropy", "temperature", "value"}
    assert all(value.shape == (NUM,) for value in metrics.values())


def test_blocks_between_validations_follow_from_the_steps_of_a_teacher() -> None:
    assert learner(num_envs=1, validation_interval=20).config.blocks_between_validations == 4
    assert learner(num_envs=4, validation_interval=20).config.blocks_between_validations == 1
    assert learner(num_envs=4, validation_interval=1).config.blocks_between_validations == 1


def test_the_critics_learn_what_is_experienced() -> None:
    """Without a future the value of a step is its reward, which is there to be regressed."""
    teachers = learner(
        num_steps=400,
        start_steps=40,
        capacity=400,
        gamma=0.0,
        batch_size=64,
        critic_learning_rate=1e-2,
        critic_widths=[32],
        initial_temperature=1e-6,
        temperature_learning_rate=0.0,
        num_envs=4,
    )

    def error() -> torch.Tensor:
        batch, _ = teachers.replay.sample(200, torch.Generator().manual_seed(1))
        inputs = torch.cat([batch.observation, batch.action], -1).repeat(2, 1, 1)
        guess = forward(teachers.agents.state.critics, inputs).squeeze(-1).unflatten(0, (2, NUM))
        return (guess - batch.reward).square().mean((0, 2)) / batch.reward.var(1)

    block(teachers)
    block(teachers)
    before = error()
    for _ in range(16):
        block(teachers)
    assert (error() < 0.5 * before).all(), (before, error())


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
@pytest.mark.parametrize("before", [10, 23, 37])
def test_resumed_teachers_go_on_bit_for_bit_also_in_the_midst_of_a_block(kind: str, before: int) -> None:
    straight = learner(kind=kind)
    for _ in range(before):
        straight.update()
    state = copy.deepcopy(straight.state_dict())
    resumed = learner(seed=9, kind=kind)
    block(resumed)
    resumed.load_state_dict(state)
    for _ in range(20):
        ours, theirs = resumed.update(), straight.update()
        assert (ours is None) == (theirs is None)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs or ())
    assert resumed.env_steps == straight.env_steps == before + 20
    assert resumed.fraction == straight.fraction
    assert all(torch.equal(a, b) for a, b in zip(leaves(resumed), leaves(straight), strict=True))
    assert torch.equal(resumed.diverged, straight.diverged)


def test_a_block_that_is_recorded_as_a_whole_is_the_same_as_step_by_step() -> None:
    steps, whole = learner(), learner()
    whole._recorded = True  # as on a GPU, where it is replayed
    for _ in range(6):
        ours, theirs = whole.update(), block(steps)
        assert ours is not None
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert whole.step_count == steps.step_count == 6
    assert all(torch.equal(a, b) for a, b in zip(leaves(whole), leaves(steps), strict=True))


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
def test_an_agent_that_is_not_finite_is_counted_and_the_others_learn_as_without_it(kind: str) -> None:
    broken, whole = learner(kind=kind), learner(kind=kind)
    for teachers in (broken, whole):
        for _ in range(5):
            block(teachers)
    broken.agents.state.actor[0].weight[0] = math.nan
    for teachers in (broken, whole):
        for _ in range(3):
            block(teachers)
    assert all(tensor.isfinite().all() for tensor in broken.replay.storage)
    assert broken.skipped[0] > 0
    assert broken.diverged[0] >= 15
    assert (broken.skipped[1], broken.diverged[1]) == (whole.skipped[1], whole.diverged[1])
    for ours, theirs in zip(pytree.tree_leaves(broken.teachers()), pytree.tree_leaves(whole.teachers()), strict=True):
        assert torch.equal(ours[1], theirs[1])


def test_a_curriculum_moves_on_by_the_episodes_that_end_well() -> None:
    stages = CurriculumConfig(enabled=True, window=2, advance_at=0.5, fall_back_at=0.0, max_position_error=100.0)
    calm = Task(episode_steps=5, termination=Termination(enabled=False))
    curriculum = Curriculum(stages, calm, NUM)
    config = from_dict(SACTeachersConfig, {**SMALL, "replay": {"capacity": 40}})
    teachers = SACTeachers(config, calm, sample_quadrotors(NUM, seed=2), curriculum, 0, compile=False)
    for _ in range(4):
        block(teachers)
    assert curriculum.stage.min() >= 1


def test_what_the_replay_holds_is_what_was_flown() -> None:
    teachers = learner(num_envs=2, start_steps=10_000)
    experienced = []
    step = teachers.collector.step

    def noted(actor):
        experienced.append(step(actor))
        return experienced[-1]

    teachers.collector.step = noted
    block(teachers)
    index = torch.arange(5).expand(NUM, -1)  # of the first environment
    stored = read(teachers.replay.storage, index, n_step=1, gamma=teachers.config.gamma)
    for number, (one, _) in enumerate(experienced):
        assert torch.equal(stored.observation[:, number], one.observation[:, 0])
        assert torch.equal(stored.action[:, number], one.action[:, 0])
        assert torch.equal(stored.reward[:, number], one.reward[:, 0])
        assert torch.equal(stored.discount[:, number] == 0, one.terminated[:, 0])
