"""The plan of a population: shards fit, it agrees with what is allocated, and what cannot fit is reported."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raptor.config import load_config
from raptor.core.errors import UserError
from raptor.environments.episode import draw_noise
from raptor.quadrotor import sample_quadrotors
from raptor.rl.curriculum import Curriculum
from raptor.rl.segment import RolloutState, StepInputs
from raptor.training import memory
from raptor.training.memory import BASE_BYTES, GIB, nbytes
from raptor.training.teachers.config import PreTrainConfig
from raptor.training.teachers.gradient import APGTeachers
from raptor.training.teachers.sac import SACTeachers, make_replay
from raptor.training.teachers.shard import Plan, bytes_per_teacher, make_plan, read_plan

NUM = 3
FLIGHTS = ("num_validation=1", "num_evaluation=2", "compile=false")


def config(*overrides: str) -> PreTrainConfig:
    return load_config(PreTrainConfig, None, overrides)


def curriculum(settings: PreTrainConfig) -> Curriculum:
    return Curriculum(settings.curriculum_in_use(), settings.task, NUM)


def plan(asked: PreTrainConfig, num: int, at_once: int, num_parts: int = 1) -> Plan:
    return make_plan(asked, [f"{i:04d}" for i in range(num)], at_once, num_parts)


@given(
    st.integers(1, 3000),
    st.integers(1, 12),
    st.floats(0.8, 200),
    st.none() | st.integers(1, 40),
    st.sampled_from(["apg", "sac"]),
)
@settings(max_examples=20)
def test_every_teacher_is_in_a_shard_and_all_shards_at_a_time_fit(
    num: int, at_once: int, gib: float, size: int | None, algorithm: str
) -> None:
    asked = config(f"algorithm={algorithm}", f"memory_gib={gib}", f"shard_size={'null' if size is None else size}")
    needed = BASE_BYTES + (size or 1) * bytes_per_teacher(asked)
    if needed > gib * GIB / min(at_once, num):
        with pytest.raises(UserError, match="do not fit into"):
            plan(asked, num, at_once)
        return
    cut = plan(asked, num, at_once)
    assert cut.num_shards * cut.shard_size >= num > (cut.num_shards - 1) * cut.shard_size
    assert cut.shard_size <= (size or num)
    assert cut.at_once <= min(at_once, cut.num_shards)
    assert cut.at_once * (BASE_BYTES + cut.shard_size * cut.bytes_per_teacher) <= gib * GIB
    shards = cut.cut(range(num), attempt=0)
    assert [member for members in shards.values() for member in members] == list(range(num))
    assert len(shards) == cut.num_shards
    assert {len(members) for members in shards.values()} <= {cut.shard_size, cut.shard_size - 1}


def bytes_of_replay(asked: PreTrainConfig) -> int:
    return make_replay(asked.sac, 1, asked.task, compile=False).nbytes


@pytest.mark.parametrize("kind", ["uniform", "prioritised"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_plan_counts_the_replay_to_the_byte(kind: str, precision: str) -> None:
    def asked(capacity: int) -> PreTrainConfig:
        replay = (f"sac.replay.{key}={value}" for key, value in (("kind", kind), ("precision", precision)))
        return config("algorithm=sac", *FLIGHTS, f"sac.replay.capacity={capacity}", *replay)

    large, small = asked(40_000), asked(1_000)
    difference = bytes_of_replay(large) - bytes_of_replay(small)
    assert bytes_per_teacher(large) - bytes_per_teacher(small) == difference > 2_000_000


def test_the_plan_of_soft_actor_critic_is_what_its_tensors_take() -> None:
    asked = config(
        "algorithm=sac",
        *FLIGHTS,
        "sac.replay.capacity=2000",
        "sac.batch_size=64",
        "sac.start_steps=1",
        "sac.num_envs=2",
        "sac.critic_widths=[128,128]",
        "sac.block_steps=2",
    )
    learner = SACTeachers(asked.sac, asked.task, sample_quadrotors(NUM, seed=0), curriculum(asked), 0, compile=False)
    while learner.update() is None:
        pass
    batch = learner.replay.sample(asked.sac.batch_size, learner.generator)
    collected = learner.collector.state_dict()
    measured = learner.replay.nbytes + nbytes((learner.agents.state, collected, learner.collector._for_block, batch))
    assert 0.3 < measured / (NUM * bytes_per_teacher(asked)) < 1.0


@pytest.mark.parametrize("num_envs", [4, 16])
def test_the_plan_of_the_gradient_is_what_a_segment_keeps(num_envs: int) -> None:
    asked = config(*FLIGHTS, f"apg.num_envs={num_envs}", "apg.segment_steps=20", "apg.widths=[16]")
    learner = APGTeachers(asked.apg, asked.task, sample_quadrotors(NUM, seed=0), curriculum(asked), 0, compile=False)
    noise = draw_noise(asked.task, learner.quadrotors.mass, learner.generator, asked.apg.segment_steps)
    draws = [tuple(draw for draw in step if draw is not None) for step in noise]
    flight = RolloutState.begin(learner.episode, ())
    start = StepInputs(learner.layers, learner.quadrotors, flight, draws[0])
    segment, trail = learner.gradient.fly(start, draws)
    inputs = list({tensor for step in trail for tensor in step})
    kept = (inputs, segment.cost, segment.reward, segment.terminated)
    measured = nbytes((kept, learner.adam, learner.layers, learner.episode))
    assert 0.4 < measured / (NUM * bytes_per_teacher(asked)) < 1.0


def test_the_plan_is_told_in_words() -> None:
    text = plan(config("memory_gib=8", "shard_size=100", "apg.num_envs=32"), 1000, 2).describe()
    assert text.startswith("1000 teachers in 10 shards of at most 100, 2 at once: ")
    assert text.endswith(" of 8 GiB")
    assert "MiB a teacher" in text


@pytest.mark.parametrize(
    ("overrides", "at_once", "sentence"),
    [
        (["memory_gib=0.1"], 1, "1 teachers of .* GiB each .* do not fit into 0.1 GiB: lower apg.num_envs or"),
        (["algorithm=sac", "memory_gib=0.61"], 1, "lower sac.replay.capacity or shard_size, or raise memory_gib"),
        (["memory_gib=1", "shard_size=100000"], 1, "100000 teachers of .* do not fit into 1 GiB"),
        (["memory_gib=4"], 8, "into 0.5 GiB: lower apg.num_envs, engine.num_workers or shard_size"),
    ],
)
def test_what_cannot_fit_is_an_error_with_the_setting_to_change(
    overrides: list[str], at_once: int, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        plan(config(*overrides), 1000, at_once)


def test_a_run_in_parts_has_as_many_shards_where_no_size_is_asked_for() -> None:
    asked = config("memory_gib=8")
    assert plan(asked, 60, 1).num_shards == 1
    assert plan(asked, 60, 1, num_parts=20).num_shards == 20
    assert plan(asked, 3, 1, num_parts=20).num_shards == 3
    assert plan(config("memory_gib=8", "shard_size=30"), 60, 1, num_parts=20).num_shards == 2


def test_the_plan_of_a_run_that_goes_on_is_that_with_which_it_began(tmp_path) -> None:
    for num, parts in ((60, 7), (5, 1), (17, 3), (1, 4)):
        begun = plan(config("memory_gib=8"), num, 1, parts)
        begun.write(tmp_path / "plan.json")
        later = read_plan(tmp_path / "plan.json", config("memory_gib=3"), 2)
        assert (later.names, later.cut(range(num), 1)) == (begun.names, begun.cut(range(num), 1))
    with pytest.raises(UserError, match="do not fit into"):
        read_plan(tmp_path / "plan.json", config("memory_gib=0.1"), 1)
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be read: start anew with --overwrite"):
        read_plan(tmp_path / "plan.json", config(), 1)


def test_processes_that_have_nothing_to_do_take_no_memory_away() -> None:
    assert plan(config("memory_gib=1.5"), 2, at_once=64).at_once <= 2


def test_without_a_budget_most_of_what_is_free_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free", lambda device: 10.0 * GIB)
    assert plan(config(), 10, 1).budget == pytest.approx(7 * GIB)
    monkeypatch.undo()
    assert 0 < plan(config(), 1, 1).budget < 1e15
