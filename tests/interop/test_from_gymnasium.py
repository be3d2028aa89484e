"""Environments of Gymnasium by name: ours, third-party, those that a module registers, and what cannot be made."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import raptor  # noqa: F401 - registers environments
from raptor.core.errors import UserError
from raptor.environments.vec_env import CheckedVecEnv
from raptor.interop.from_gymnasium import make_gymnasium

OWN = """
import gymnasium

class Own(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    def reset(self, *, seed=None, options=None):
        return self.observation_space.low, {}
    def step(self, action):
        return action, 1.0, False, False, {}

gymnasium.register("Own-v0", Own, max_episode_steps=5)
"""


class Blank(gymnasium.Env):
    """Renders black, or raises the given problem."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, render_mode=None, problem=None):
        self.render_mode, self.problem = render_mode, problem

    def reset(self, *, seed=None, options=None):
        return self.observation_space.low, {}

    def render(self):
        if self.problem is not None:
            raise self.problem
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def registered():
    """A function that registers an environment for the test."""
    names = []

    def register(name, *arguments, **settings):
        names.append(name)
        gymnasium.register(name, *arguments, **settings)

    yield register
    for name in names:
        gymnasium.registry.pop(name, None)


@pytest.mark.parametrize(("settings", "steps"), [({}, 500), ({"max_episode_steps": 7}, 7)])
def test_the_packages_own_environment_is_one_of_gymnasiums(settings, steps):
    env = make_gymnasium("raptor/Hover-v0", 3, {"compile": False, **settings})
    assert (env.num_envs, env.num_actions, env.max_episode_length) == (3, 4, steps)
    assert CheckedVecEnv(env).widths == {"policy": 22}
    assert env.cfg["kwargs"]["max_episode_steps"] == steps


def test_a_module_before_the_name_is_imported_first(tmp_path, monkeypatch):
    (tmp_path / "module_of_my_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    env = make_gymnasium("module_of_my_own:Own-v0", 2)
    assert (env.num_envs, env.num_actions, env.max_episode_length) == (2, 2, 5)
    assert env.step(torch.ones(2, 2))[1].tolist() == [1.0, 1.0]
    gymnasium.registry.pop("Own-v0")


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("NoSuchThing-v0", {}, "'NoSuchThing-v0' cannot be made: .*doesn't exist"),
        ("raptor:NoSuchThing-v0", {}, "'NoSuchThing-v0' cannot be made: .*doesn't exist"),
        (
            "no_such_module:Own-v0",
            {},
            "the module 'no_such_module' of 'no_such_module:Own-v0' cannot be imported",
        ),
        (":Own-v0", {}, "the module '' of ':Own-v0' cannot be imported"),
        ("CartPole-v1", {}, "the actions of CartPole-v1 must be a Box"),
        ("Pendulum-v1", {"gravitas": 3}, "'Pendulum-v1' cannot be made: .*gravitas"),
        ("Blank-v0", {}, "Blank-v0 does not say how long its episodes are: .*env.max_episode_steps=500"),
    ],
)
def test_what_cannot_be_made_is_refused(registered, name, settings, expected):
    registered("Blank-v0", Blank)
    with pytest.raises(UserError, match=expected):
        make_gymnasium(name, 1, settings)


@pytest.mark.parametrize(
    "problem",
    [
        gymnasium.error.DependencyNotInstalled("pygame is not installed"),
        AttributeError("'NoneType' object has no attribute 'glGetError'"),
        RuntimeError("an OpenGL platform library\nhas not been loaded."),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_a_video_that_cannot_be_rendered_is_refused_at_once_with_what_to_do(registered, problem):
    registered("Blank-v0", Blank, max_episode_steps=3, kwargs={"problem": problem})
    assert make_gymnasium("Blank-v0", 1).render() is None  # which nobody asked to render
    with pytest.raises(UserError, match="no video can be made of 'Blank-v0'") as refused:
        make_gymnasium("Blank-v0", 1, video=True)
    (line,) = str(refused.value).splitlines()
    assert " ".join(str(problem).split()).rstrip(".") in line
    assert "pip install 'gymnasium[classic-control]', [box2d] or [mujoco]" in line
    assert "MUJOCO_GL=egl" in line
    assert "leave out --video" in line


def test_an_environment_that_renders_gives_pictures(registered):
    registered("Blank-v0", Blank, max_episode_steps=3)
    assert make_gymnasium("Blank-v0", 2, video=True).render().shape == (4, 4, 3)


@pytest.mark.filterwarnings("ignore:.*The environment is being initialised with render_mode")
def test_no_video_is_promised_of_our_own_environment():
    with pytest.raises(UserError, match="render_mode must be None"):
        make_gymnasium("raptor/Hover-v0", 1, {"compile": False}, video=True)
