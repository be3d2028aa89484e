"""From rsl_rl's own PPO to a student of ours: a teacher is trained, loaded, distilled and evaluated."""

from __future__ import annotations

import torch
import yaml
from rollouts import fly
from rsl_rl.runners import OnPolicyRunner

import raptor
from raptor.interop.rsl_rl_env import RslRlVecEnv
from raptor.runs import read_curve
from raptor.tasks.initial_state import InitialStates
from raptor.training.distillation.env_job import EnvDistillConfig, distill

LEVEL = InitialStates(
    max_position=0.1, max_angle=0.2, max_linear_velocity=0.2, max_angular_velocity=0.2, rotor_speed=(0.3, 0.6)
)


def make(num_envs, **settings):
    return RslRlVecEnv(num_envs, "crazyflie", "hover", compile=False, initial_states=LEVEL, **settings)


def ppo():
    network = {"class_name": "MLPModel", "hidden_dims": [32, 32], "activation": "relu", "obs_normalization": True}
    return {
        "num_steps_per_env": 32,
        "save_interval": 1000,
        "obs_groups": {"actor": ["teacher"], "critic": ["teacher"]},
        "actor": {
            **network,
            "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 0.3, "std_type": "log"},
        },
        "critic": network,
        "algorithm": {
            "class_name": "PPO",
            "learning_rate": 1e-2,
            "schedule": "fixed",
            "gamma": 0.98,
            "entropy_coef": 0.0,
            "use_clipped_value_loss": False,
        },
    }


def seconds_in_the_air(teacher):
    """Mean time for which a teacher keeps 64 vehicles within their bounds, of 2 s."""
    env = make(64, episode_steps=200, seed=1)
    flying, steps = torch.ones(64, dtype=torch.bool), torch.zeros(64)
    for _ in range(200):
        steps += flying
        flying &= env.step(teacher(env.get_observations()["teacher"]))[2] == 0
    return env.batch.task.dt * steps.mean().item()


def test_its_own_ppo_trains_a_teacher_that_is_loaded_distilled_and_evaluated(tmp_path):
    torch.manual_seed(0)
    env, config = make(64, reward_scale=0.05), ppo()
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "agent.yaml").write_text(yaml.safe_dump(config))
    runner = OnPolicyRunner(env, config, str(tmp_path))
    runner.save(str(tmp_path / "untrained.pt"))
    runner.learn(40, init_at_random_ep_len=True)

    untrained, teacher = (raptor.load_expert(tmp_path / name) for name in ("untrained.pt", "model_39.pt"))
    assert teacher.architecture == "obs=26, actions=4, hidden=[32, 32]"
    assert teacher.activation == "relu"  # as params/agent.yaml says
    seen = env.get_observations()
    with torch.no_grad():
        torch.testing.assert_close(teacher(seen["teacher"]), runner.get_inference_policy()(seen), rtol=0, atol=1e-6)
    before = seconds_in_the_air(untrained)
    assert seconds_in_the_air(teacher) > 1.5 * before

    settings = EnvDistillConfig(
        num_epochs=6,
        num_episodes=32,
        batch_size=8,
        learning_rate=1e-2,
        epoch_teacher_forcing=3,
        validation_interval=6,
        num_validation_episodes=8,
        compile=False,
    )
    distill(make(32, episode_steps=60), teacher, settings, tmp_path / "student")
    losses = [loss for _, loss in read_curve(tmp_path / "student")["training/loss"]]
    assert losses[-1] < 0.3 * losses[0]
    student = raptor.load_policy(tmp_path / "student")
    assert isinstance(student, raptor.RaptorPolicy)
    episodes, _, _ = fly(student, env.batch.task, env.batch.quadrotors, torch.Generator().manual_seed(2))
    assert env.batch.task.dt * episodes.lengths.float().mean() > 1.2 * before
