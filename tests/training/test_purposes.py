"""What is optimised, and what only rates: one truth, said where it matters."""

from __future__ import annotations

import warnings

import pytest
import torch

from raptor.config import load_config, to_dict
from raptor.config.files import leaves
from raptor.tasks import terms
from raptor.tasks.terms import term
from raptor.training import EnvDistillConfig, PostTrainConfig, PreTrainConfig, TrainDirectConfig
from raptor.training.direct.job import first_policy, make_learner
from raptor.training.purposes import BY_JOB, PURPOSES, learns_from_reward, purpose_of, warn_of_idle

CONFIGS = (TrainDirectConfig, PreTrainConfig, PostTrainConfig, EnvDistillConfig)
TINY = ["num_updates=2", "batch_size=8", "segment_steps=10", "num_validation=8", "compile=false"]


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_setting_of_every_job_is_classified(cls):
    keys = [key for key, _ in leaves(to_dict(cls()), take_lists_apart=False)]
    assert {purpose_of(cls.JOB, key) for key in keys} <= set(PURPOSES)
    for named in BY_JOB[cls.JOB]:  # what is named is there in some job
        others = [k for other in CONFIGS for k, _ in leaves(to_dict(other()), take_lists_apart=False)]
        assert any(key == named or key.startswith(f"{named}.") or not named for key in others), named


@pytest.mark.parametrize(
    ("cls", "setting", "key"),
    [
        (TrainDirectConfig, "task.reward.position=50", r"objective\.position, or objective=reward"),
        (TrainDirectConfig, "task.reward.orientation=1", r"objective\.heading, or objective=reward"),
        (TrainDirectConfig, "task.reward.angular_velocity=1", r"objective=reward"),
        (
            TrainDirectConfig,
            "task.termination.linear_velocity=4",
            r"objective\.speed_limit, or a cost term of your",
        ),
        (PreTrainConfig, "task.reward.position=50", r"apg\.objective\.position, or apg\.objective=reward"),
        (PostTrainConfig, "task.reward.position=50", r"fine_tune\.objective\.position"),
        (PostTrainConfig, "fine_tune.task.reward.action_rate=2", r"fine_tune\.objective\.action_rate"),
    ],
)
def test_a_reward_that_is_not_trained_on_is_a_warning_that_names_what_is(cls, setting, key):
    with pytest.warns(UserWarning, match=f"only rates the policy; .* minimises .*: to train on it, give .*{key}"):
        warn_of_idle(load_config(cls, None, [setting]))


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (TrainDirectConfig, []),
        (TrainDirectConfig, ["objective=reward", "task.reward.position=50"]),
        (TrainDirectConfig, ["task.initial_states.max_angle=2", "task.termination.about_target=true"]),
        (PreTrainConfig, ["algorithm=sac", "task.reward.position=50"]),
        (PostTrainConfig, ["task.termination.linear_velocity=4"]),
    ],
)
def test_what_is_trained_on_is_no_warning(cls, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_idle(load_config(cls, None, settings))


def test_a_reward_of_ones_own_that_is_not_trained_on_is_a_warning(monkeypatch):
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))
    term("reward", "low")(lambda step: -step.next_state.position[..., 2])
    with pytest.warns(UserWarning, match="the reward term low only rates the policy.*give objective=reward"):
        warn_of_idle(load_config(TrainDirectConfig, None, ["task.extra=[low]"]))
    config = load_config(TrainDirectConfig, None, ["task.extra.low.weight=0.3", "objective=reward"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_idle(config)
    assert " - 0.3 low, at most" in config.objective.formula(config.task)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (TrainDirectConfig, ["task.extra.circle.radius=3"], r"task\.extra\.circle has no effect, .*--reference circle"),
        (
            PostTrainConfig,
            ["fine_tune.task.references.trajectory=circle", "fine_tune.task.extra.figure_eight.length=3"],
            r"fine_tune\.task\.extra\.figure_eight has no effect, .* give --reference figure-eight",
        ),
        (TrainDirectConfig, ["task.references.trajectory.scale=3"], "trajectory has settings, but no trajectory: give"),
        (
            PostTrainConfig,
            ["task.extra=[slow]"],
            r"the cost term slow .*give fine_tune\.task\.extra\.slow",
        ),
        (
            PreTrainConfig,
            ["task.extra=[slow]", "algorithm=sac"],
            "no effect, since soft actor-critic",
        ),
    ],
)
def test_what_has_no_effect_is_a_warning(cls, settings, message, monkeypatch):
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))
    term("cost", "slow")(lambda step: step.next_state.linear_velocity[..., 2] ** 2)
    with pytest.warns(UserWarning, match=message):
        warn_of_idle(load_config(cls, None, settings))


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (TrainDirectConfig, ["task.references.trajectory=circle", "task.extra.circle.radius=3"]),
        (PostTrainConfig, ["fine_tune.task.extra=[slow]"]),
        (PreTrainConfig, ["task.extra=[slow]"]),
    ],
)
def test_what_has_an_effect_is_no_warning(cls, settings, monkeypatch):
    monkeypatch.setattr(terms, "_registered", dict(terms._registered))
    term("cost", "slow")(lambda step: step.next_state.linear_velocity[..., 2] ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warn_of_idle(load_config(cls, None, settings))


def weights_after(*settings: str) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = load_config(TrainDirectConfig, None, [*TINY, *settings])
    learner = make_learner(config, first_policy(config))
    for _ in range(config.num_updates):
        learner.update()
    return torch.cat([parameter.detach().flatten() for parameter in learner.policy.parameters()])


def test_what_is_said_to_be_trained_on_changes_the_policy_and_what_rates_does_not():
    plain, smooth = weights_after(), weights_after("objective=reward")
    settings = {
        "task.reward.position=50": False,
        "task.reward.orientation=1": False,
        "task.termination.linear_velocity=4": False,
        "objective.position=50": True,
        "task.initial_states.max_angle=2": True,
        "task.disturbances.force=3": True,
    }
    for setting, trains in settings.items():
        assert (purpose_of("train-direct", setting.partition("=")[0]) != "rated by") is trains
        assert torch.equal(weights_after(setting), plain) is not trains, setting
    assert not torch.equal(plain, smooth)
    assert not torch.equal(weights_after("objective=reward", "task.reward.position=50"), smooth)
    assert torch.equal(weights_after("objective=reward", "objective.position=50"), smooth)


def test_the_cost_is_a_formula_with_its_weights():
    config = TrainDirectConfig()
    limits = "1 saturation² + 20 speed² (beyond 1.6 m/s)"
    more = "0.2 velocity + 3 tracking, at most 20"
    assert config.objective.formula(config.task) == f"1 position + 0.2 heading + 1 action_rate + {limits} + {more}"
    config = load_config(TrainDirectConfig, None, ["objective=reward", "task.reward.position=50"])
    assert (
        config.objective.formula(config.task) == f"50 position + 0.1 orientation + 1 action_rate + {limits}, at most 20"
    )
    assert learns_from_reward(config)
