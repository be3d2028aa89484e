"""`import raptor`: what it offers, where the rest went, and what it registers, without waiting for torch."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import raptor
from raptor.tasks import Task

IDS = ("raptor/Hover-v0", "raptor/Track-v0", "raptor/L2F-v0")


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_every_public_name_is_there_and_listed():
    assert 20 <= len(raptor.__all__) <= 32
    for name in raptor.__all__:
        assert getattr(raptor, name) is not None
        assert name in dir(raptor)


def test_type_checkers_see_the_same_names_from_the_same_homes():
    tree = ast.parse(Path(raptor.__file__).read_text(encoding="utf-8"))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checking.body if isinstance(node, ast.ImportFrom) and node.module != "raptor"]
    seen = {alias.asname: node.module.removeprefix("raptor.") for node in imports for alias in node.names}
    assert seen == raptor._HOMES


@pytest.mark.parametrize(
    ("old", "new"),
    [("step", "quadrotor.step"), ("platform", "load_platform"), ("MLPPolicy", "nn.MLPPolicy")],
)
def test_an_old_name_is_answered_with_the_new_one(old, new):
    with pytest.raises(AttributeError, match=f"raptor.{old} is now raptor.{new}"):
        getattr(raptor, old)


def test_every_new_name_of_an_old_one_exists():
    for new in raptor._RENAMED.values():
        pkgutil.resolve_name(f"raptor.{new}")


@pytest.mark.parametrize("name", ["nothing", "__main__", "_nothing"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'raptor' has no attribute '{name}'"):
        getattr(raptor, name)


def test_the_rooms_need_no_import_of_their_own():
    done = run("import raptor; print(raptor.quadrotor.step.__module__)")
    assert done.stdout.strip() == "raptor.quadrotor.dynamics", done.stderr


def test_the_import_does_not_wait_for_torch():
    done = run("import sys, raptor; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_the_import_registers_the_environments_with_the_tasks_own_length():
    done = run("import raptor, gymnasium; print(*gymnasium.registry)")
    assert set(IDS) <= set(done.stdout.split())
    assert {gymnasium.spec(name).max_episode_steps for name in IDS} == {Task().episode_steps}


def test_the_core_works_without_gymnasium():
    done = run(
        "import sys; sys.modules['gymnasium'] = None; sys.modules['gymnasium.envs.registration'] = None\n"
        "import torch, raptor\n"
        "env = raptor.QuadrotorEnv(raptor.load_platform('race'), compile=False)\n"
        "env.reset(); print(env.step(torch.zeros(1, 4)).observation.shape)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([1, 22])"
