"""Train a teacher with stable-baselines3 in one of MuJoCo's environments, distill it, and compare the student with it.

    python examples/distill_mujoco.py --env HalfCheetah-v5 --steps 100000 --output runs/cheetah

It needs the extras sb3 and sim. `--teacher sac.zip` takes an existing teacher. The student is a GRU with the teacher's
observations; both are evaluated on the same episodes, which neither was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import raptor
from raptor.environments.vec_env import CheckedVecEnv
from raptor.evaluation import Estimate, bootstrap_means
from raptor.interop.from_gymnasium import make_gymnasium
from raptor.rl.demonstrations import VecStudent, rollout_vec_env
from raptor.training.distillation.config import StudentConfig
from raptor.training.distillation.env_job import EnvDistillConfig, distill

UNSEEN_SEED = 123_456


def main(arguments: Sequence[str] | None = None) -> tuple[Estimate, Estimate]:
    """Train, distill, evaluate and print; returns the mean return of teacher and student with their intervals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--teacher", type=Path, help="archive of stable-baselines3; trained by default")
    parser.add_argument("--steps", type=int, default=100_000, help="of the environment, to train the teacher")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-epochs", type=int, default=60)
    parser.add_argument("--hidden-dim", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--num-episodes", type=int, default=32, help="to compare both in")
    parser.add_argument("--no-compile", action="store_true", help="start at once, run slower")
    parser.add_argument("--output", type=Path, default=Path("runs/mujoco"))
    options = parser.parse_args(arguments)

    archive = options.teacher or train_teacher(options.env, options.steps, options.output)
    expert = raptor.load_expert(archive)
    print(expert.description)
    env = make_gymnasium(options.env, options.num_envs)
    config = EnvDistillConfig(
        task=options.env,
        num_epochs=options.num_epochs,
        epoch_teacher_forcing=min(5, options.num_epochs),
        num_episodes=options.num_envs,
        batch_size=8,
        sequence_length=32,
        learning_rate=options.learning_rate,
        compile=not options.no_compile,
        student=StudentConfig(hidden_dim=options.hidden_dim),
    )
    distill(env, expert, config, options.output / "student", overwrite=True, progress=show)

    checked = CheckedVecEnv(env)
    controller = VecStudent(raptor.load_policy(options.output / "student").tensors(), "policy")
    found = [
        returns(checked, acts, options.num_episodes) for acts in (lambda seen, _: expert(seen["policy"]), controller)
    ]
    teacher, student = (bootstrap_means(r.unsqueeze(-1).numpy(), [0] * len(r)).estimate(0, 0) for r in found)
    for name, estimate in (("teacher", teacher), ("student", student)):
        interval = f"[{estimate.low:.1f}, {estimate.high:.1f}]"
        print(f"{name}: return {estimate.value:.1f} {interval}, {len(found[0])} episodes")
    print(f"the student reaches {student.value / teacher.value:.1%} of the teacher's return")
    return teacher, student


def train_teacher(env: str, num_steps: int, folder: Path) -> Path:
    """Soft actor-critic, as stable-baselines3 sets it up."""
    from stable_baselines3 import SAC

    folder.mkdir(parents=True, exist_ok=True)
    model = SAC("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [64, 64]})
    model.learn(num_steps)
    model.save(folder / "teacher.zip")
    return folder / "teacher.zip"


def returns(env: CheckedVecEnv, controller, num_episodes: int) -> torch.Tensor:
    """Returns of episodes that depend on the seed only."""
    env.begin(UNSEEN_SEED)
    episodes = rollout_vec_env(env, controller, -(-num_episodes // env.num_envs))
    return episodes.returns.flatten()


def show(progress) -> None:
    if progress.validation and progress.step % 5 == 0:
        print(f"epoch {progress.step} of {progress.num_steps}: return {progress.validation['mean_return']:.1f}")


if __name__ == "__main__":
    main()
