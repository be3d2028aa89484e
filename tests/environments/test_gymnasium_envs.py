"""The environments behind Gymnasium's interfaces."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import raptor  # registers the environments
from raptor.core.errors import UserError
from raptor.environments import QuadrotorEnv
from raptor.quadrotor import load_platform, sample_quadrotors
from raptor.tasks import References, Task, Termination
from raptor.tasks.task import TASKS, make_task

IDS = ("raptor/Hover-v0", "raptor/Track-v0")
ZERO, ONE = np.zeros(4, np.float32), np.ones(4, np.float32)


def make(name="raptor/Hover-v0", **settings):
    return gymnasium.make(name, compile=False, **settings)


def make_vec(name="raptor/Hover-v0", **settings):
    return gymnasium.make_vec(name, compile=False, **settings)


def play(env, num_steps, seed=0):
    """Everything that reset and a number of steps return; episodes begin anew where the environment does not do it."""
    env.action_space.seed(seed)
    trace = [env.reset(seed=seed)]
    for _ in range(num_steps):
        trace.append(env.step(env.action_space.sample()))
        if isinstance(env, gymnasium.Env) and (trace[-1][2] or trace[-1][3]):
            trace.append(env.reset())
    return trace


def same(one, other):
    """Whether two nestings hold the same numbers of the same types."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray) and one.dtype == object:
        return other.dtype == object and same(list(one), list(other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("quadrotor", ["crazyflie", "random"])
def test_gymnasiums_checker_finds_nothing(name, quadrotor):
    env = make(name, quadrotor=quadrotor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_the_checker_of_stable_baselines3_finds_nothing(name):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(make(name).unwrapped, warn=True)


@pytest.mark.parametrize("name", IDS)
def test_every_step_of_an_episode_is_in_the_spaces_and_its_passive_checks(name):
    env = make(name)  # Gymnasium's own checks run in every call
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for observation, *_ in play(env, 60):
            assert observation in env.observation_space


def test_a_single_environment_is_the_batched_one_with_a_population_of_one():
    env = make("raptor/Track-v0", quadrotor="x500_real").unwrapped
    observation, info = env.reset(seed=3)
    batch = QuadrotorEnv(load_platform("x500_real"), TASKS["track"], compile=False, auto_reset=False)
    torch_seed = int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(3))).integers(2**62))
    np.testing.assert_array_equal(observation, batch.reset(seed=torch_seed)[0][0].numpy())
    assert info == {"position_error": batch.position_error.item()}
    env.action_space.seed(0)
    for _ in range(5):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        result = batch.step(torch.from_numpy(action)[None])
        np.testing.assert_array_equal(observation, result.observation[0].numpy())
        assert (reward, terminated, truncated) == (result.reward.item(), False, False)
        assert info == {"position_error": result.info["position_error"].item()}


def test_hover_holds_the_origin_and_track_follows_a_walk_or_a_figure():
    hover, track = (make_vec(name, num_envs=64) for name in IDS)
    for env in (hover, track):
        play(env, 2)
    reference = hover.unwrapped.batch.episode.reference
    assert (reference.langevin_sigma == 0).all()
    assert (reference.amplitude == 0).all()
    reference = track.unwrapped.batch.episode.reference
    walking, turning = reference.langevin_sigma > 0, (reference.amplitude > 0).any(-1)
    assert torch.equal(walking, ~turning)
    assert 16 < walking.sum() < 48


@pytest.mark.parametrize("steps", [3, 502])
def test_gymnasiums_time_limit_decides_when_an_episode_is_over(steps):
    settings = {"max_episode_steps": steps, "termination": Termination(enabled=False)}
    one, many = make(**settings), make_vec(num_envs=2, **settings)
    hover = np.full((2, 4), 2 * load_platform("crazyflie").hover_throttle.item() - 1, np.float32)
    one.reset(seed=0)
    many.reset(seed=0)
    for truncated in [False] * (steps - 1) + [True]:
        assert one.step(hover[0])[3] == truncated
        assert many.step(hover)[3].tolist() == [truncated] * 2


@pytest.mark.parametrize("settings", [{"episode_steps": 1000}, {"task": Task(episode_steps=1000)}])
def test_the_tasks_own_number_of_steps_is_answered_with_gymnasiums_name(settings):
    for maker in (make, make_vec):
        with pytest.raises(UserError, match="give max_episode_steps=1000 instead of episode_steps=1000"):
            maker(**settings)


def test_the_task_decides_when_a_vehicle_is_lost():
    fallen = make()
    fallen.reset(seed=0)
    flags = [fallen.step(-np.ones(4, np.float32))[2:4] for _ in range(60)]
    assert (True, False) in flags


def test_a_seed_decides_the_episodes_and_none_gives_others():
    env = make()
    first, again, other = play(env, 5, seed=1), play(env, 5, seed=1), play(env, 5, seed=2)
    assert same(first, again)
    assert not np.array_equal(first[0][0], other[0][0])
    assert not np.array_equal(env.reset()[0], env.reset()[0])
    assert not np.array_equal(make().reset()[0], make().reset()[0])


def test_the_vector_environment_says_what_gymnasiums_own_one_says():
    settings = {"num_envs": 1, "max_episode_steps": 3}
    ours = make_vec(**settings)
    theirs = make_vec(**settings, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "SameStep"})
    assert ours.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    trace = play(ours, 8)
    assert same(trace, play(theirs, 8))
    assert [step[4].get("_final_obs", [False])[0] for step in trace[1:]].count(True) == 2


def test_final_observations_are_given_where_an_episode_ended_and_only_there():
    env = make_vec(num_envs=6, quadrotor="random")
    env.action_space.seed(0)
    env.reset(seed=0)
    seen = np.zeros(6, bool)
    for _ in range(40):
        observation, _, terminated, truncated, infos = env.step(env.action_space.sample())
        done = terminated | truncated
        seen |= done
        if not done.any():
            assert "final_obs" not in infos
            continue
        assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == done.tolist()
        for index in range(6):
            if done[index]:
                assert not np.array_equal(infos["final_obs"][index], observation[index])
                assert infos["final_info"]["position_error"][index] != infos["position_error"][index]
            else:
                assert infos["final_obs"][index] is None
    assert seen.any()


def test_with_next_step_reset_the_step_after_an_end_is_the_new_episodes_start():
    env = make_vec(num_envs=2, max_episode_steps=2, autoreset_mode="NextStep")
    steps = play(env, 6)[1:]
    assert [truncated.tolist() for _, _, _, truncated, _ in steps] == [[step % 3 == 1] * 2 for step in range(6)]
    for observation, reward, terminated, _, infos in (steps[2], steps[5]):
        assert reward.tolist() == [0, 0]
        assert not terminated.any()
        assert "final_obs" not in infos
        rotors = env.unwrapped.batch.episode.state.rotor_speed
        if observation is steps[5][0]:
            np.testing.assert_allclose(observation[:, 18:], 2 * rotors.numpy() - 1, atol=1e-6)


def test_without_autoreset_the_chosen_vehicles_are_reset_on_request():
    env = make_vec(num_envs=3, max_episode_steps=2, autoreset_mode=AutoresetMode.DISABLED)
    *_, (before, _, _, truncated, _) = play(env, 2)
    assert truncated.all()
    observation, infos = env.reset(options={"reset_mask": np.array([True, False, True])})
    assert infos["_position_error"].tolist() == [True, False, True]
    assert (observation != before).any(1).tolist() == [True, False, True]
    with pytest.raises(UserError, match="reset_mask"):
        env.reset(options={"reset_mask": np.zeros(3, bool)})


@pytest.mark.parametrize(
    "wrap",
    [
        gymnasium.wrappers.NormalizeObservation,
        gymnasium.wrappers.RecordEpisodeStatistics,
        lambda env: gymnasium.wrappers.RescaleAction(env, ZERO, ONE),
        lambda env: gymnasium.wrappers.TimeLimit(env, 7),
    ],
    ids=["NormalizeObservation", "RecordEpisodeStatistics", "RescaleAction", "TimeLimit"],
)
def test_gymnasiums_wrappers_fit_a_single_environment(wrap):
    env = wrap(make("raptor/Track-v0"))
    for observation, *_ in play(env, 30):
        assert observation in env.observation_space
        assert np.isfinite(observation).all()


def test_the_wrappers_do_what_they_are_for():
    actions = make().action_space
    actions.seed(0)
    flown = [actions.sample() for _ in range(5)]
    plain, scaled = make(), gymnasium.wrappers.RescaleAction(make(), ZERO, ONE)
    plain.reset(seed=0)
    scaled.reset(seed=0)
    for action in flown:
        np.testing.assert_allclose(scaled.step((action + 1) / 2)[0], plain.step(action)[0], atol=1e-6)

    limited = gymnasium.wrappers.RecordEpisodeStatistics(make(max_episode_steps=5))
    limited.reset(seed=0)
    *_, (_, _, _, truncated, info) = steps = [limited.step(0.2 * action) for action in flown]
    assert truncated
    assert info["episode"]["l"] == 5
    assert info["episode"]["r"] == pytest.approx(sum(step[1] for step in steps))


@pytest.mark.parametrize(
    ("mode", "wrap"),
    [
        ("SameStep", gymnasium.wrappers.vector.RecordEpisodeStatistics),
        ("SameStep", lambda env: gymnasium.wrappers.vector.RescaleAction(env, ZERO, ONE)),
        ("NextStep", gymnasium.wrappers.vector.NormalizeObservation),  # it accepts no other mode
    ],
    ids=["RecordEpisodeStatistics", "RescaleAction", "NormalizeObservation"],
)
def test_gymnasiums_wrappers_fit_the_vector_environment(mode, wrap):
    env = wrap(make_vec(num_envs=3, autoreset_mode=mode, max_episode_steps=5))
    *_, (observation, *_, infos) = play(env, 10)
    assert observation in env.observation_space
    if isinstance(env, gymnasium.wrappers.vector.RecordEpisodeStatistics):
        assert infos["episode"]["l"].tolist() == [5, 5, 5]


def test_a_lost_vehicle_is_not_reported_on_its_target():
    action = np.full((2, 4), np.nan, np.float32)
    one, many = make().unwrapped, make_vec(num_envs=2)
    one.reset(seed=0)
    many.reset(seed=0)
    _, reward, terminated, _, info = one.step(action[0])
    assert (terminated, reward) == (True, -100.0)
    assert np.isnan(info["position_error"])
    _, reward, terminated, _, infos = many.step(action)
    assert terminated.all()
    assert (reward == -100.0).all()
    assert np.isnan(infos["final_info"]["position_error"]).all()
    assert np.isfinite(infos["position_error"]).all()  # of the episodes that have begun


@pytest.mark.filterwarnings("ignore:.*The environment is being initialised with render_mode")
@pytest.mark.parametrize("maker", [make, make_vec])
def test_a_render_mode_is_refused_because_there_is_none(maker):
    with pytest.raises(UserError, match=r"render_mode must be None.*got 'human'"):
        maker(render_mode="human")


def test_quadrotors_are_found_by_name_by_file_and_by_folder(tmp_path):
    raptor.load_platforms()[:3].save(tmp_path)
    single = make(quadrotor=str(tmp_path / "x500_real.json")).unwrapped
    assert torch.equal(single.batch.quadrotors.mass, load_platform("x500_real").mass)
    folder = make_vec(num_envs=7, quadrotor=tmp_path).unwrapped
    assert folder.batch.quadrotors.names == ("crazyflie", "x500_real", "x500_sim") * 2 + ("crazyflie",)
    (tmp_path / "mine.yaml").write_text("name: mine\nmass: 0.7\n")
    described = make_vec(num_envs=2, quadrotor=[str(tmp_path / "mine.yaml"), "race"]).unwrapped
    assert described.batch.quadrotors.names == ("mine", "race")
    given = sample_quadrotors(2, seed=0)
    assert torch.equal(make_vec(num_envs=2, quadrotor=given).unwrapped.batch.quadrotors.mass, given.mass)


def test_random_quadrotors_are_new_in_each_episode():
    env = make(quadrotor="random").unwrapped
    masses = []
    for seed in (1, None, 1):
        env.reset(seed=seed)
        masses.append(env.batch.quadrotors.mass.item())
    assert masses[0] == masses[2] != masses[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quadrotor": "nimbus"}, "there is no quadrotor 'nimbus'"),
        ({"quadrotor": sample_quadrotors(2, seed=0)}, "2 quadrotors were given, but the environment flies 1"),
        ({"task": "race"}, "there is no task 'race': choose one of hover, track"),
        ({"episode_step": 3}, "episode_step is neither a keyword argument"),
        ({"episode_steps": 0}, "episode_steps must be at least 1, got 0"),
        ({"references": {"trajectory": "round"}}, "there is no term round"),
        ({"termination": {"about": True}}, "termination.about is unknown"),
        ({"simulator": "gazebo"}, "simulator must be one of raptor, l2f, mujoco, got 'gazebo'"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_sentence(settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_the_task_can_be_given_whole():
    task = Task(references=References(langevin_share=0.25), dt=0.02)
    assert make(task=task).unwrapped.batch.task == task
    assert make(task="paper").unwrapped.batch.task == Task.paper()


def test_fields_of_the_task_can_be_given_as_nested_dictionaries():
    task = make(task="track", references={"trajectory": "circle"}, extra={"circle": {"radius": 2}}).unwrapped.batch.task
    assert task.references.trajectory.source == "circle"
    assert task.references.langevin_share == make_task("track", {}).references.langevin_share
    assert task.termination.about_target
    time = torch.tensor([1.5])
    assert task.references.trajectory.motion(time, torch.empty(1, 0))[0].norm().item() == pytest.approx(2)
