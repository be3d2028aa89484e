"""C sources: compiled without a warning, they act, observe, simulate and keep time as the package does."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from l2f_recording import recorded

from raptor.core.errors import UserError
from raptor.environments.episode import begin_episode
from raptor.export import ExportError, c_source, export_policy
from raptor.formats import load_policy
from raptor.nn.policy import MLPPolicy
from raptor.quadrotor import Quadrotors, State, step
from raptor.tasks import References, Task
from raptor.tasks.observation import sense, student_observation
from raptor.tasks.reference import Reference

Array = np.ndarray
COMPILER = c_source.find_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    folder = tmp_path_factory.mktemp("c") / "published"
    export_policy(load_policy("published"), folder, "c")
    assert COMPILER is not None
    with c_source.compiled(COMPILER, folder) as compiled:
        yield compiled


def pointer(array: Array) -> ctypes.c_void_p:
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("name", ["default", "large", "agile"])
def test_packaged_policies_act_in_c_as_in_torch(tmp_path: Path, name: str) -> None:
    verified = export_policy(load_policy(name), tmp_path / "c", "c")
    assert verified.error is not None
    assert verified.error < 5e-5
    assert verified.by == Path(str(COMPILER)).name


def test_a_policy_without_memory_acts_in_c_as_in_torch(tmp_path: Path) -> None:
    verified = export_policy(MLPPolicy(hidden_dim=8), tmp_path / "c", "c")
    assert verified.error is not None
    assert verified.error < 1e-6


def test_the_self_test_finds_no_fault(library: ctypes.CDLL) -> None:
    library.raptor_self_test.restype = ctypes.c_float
    assert 0 <= library.raptor_self_test() < 1e-6


@pytest.mark.parametrize("action", [-np.inf, -10.0, -1.0, 0.0, 0.5, 1.0, 10.0, np.inf, np.nan])
def test_motor_commands_stay_within_their_bounds_whatever_the_action(library: ctypes.CDLL, action: float) -> None:
    motors = np.full(4, 7, np.float32)
    library.raptor_motors(pointer(np.full(4, action, np.float32)), pointer(motors))
    wanted = 0.0 if np.isnan(action) else (np.clip(action, -1, 1) + 1) / 2
    assert (motors == wanted).all()


def test_the_simulator_makes_the_recorded_transitions_of_l2f(library: ctypes.CDLL) -> None:
    recording = recorded()
    rows, states = vehicle_rows(recording.quadrotors("", torch.float32)), recording.arrays["state"].astype(np.float32)
    zero = np.zeros(3, np.float32)
    for row, state, action in zip(rows, states, recording.arrays["action"].astype(np.float32), strict=True):
        arguments = map(pointer, (row, state, action, zero, zero))
        library.raptor_simulate(*arguments, ctypes.c_float(0.01))
    after = recording.arrays["next_state"]
    assert len(states) == 512
    assert (np.abs(states - after) / (1 + np.abs(after))).max() <= 5e-6


def test_force_and_torque_act_as_in_the_package(library: ctypes.CDLL) -> None:
    recording, generator = recorded(), torch.Generator().manual_seed(0)
    quadrotors, state = recording.quadrotors("", torch.float32), recording.tensor("state", torch.float32)
    action = recording.tensor("action", torch.float32)
    force = quadrotors.mass.unsqueeze(-1) * torch.randn(512, 3, generator=generator)
    torque = quadrotors.inertia.diagonal(dim1=-2, dim2=-1) * torch.randn(512, 3, generator=generator)
    wanted = step(quadrotors, State.from_tensor(state), action, 0.004, force, torque).as_tensor()
    moved = state.numpy().copy()
    given = (vehicle_rows(quadrotors), moved, action.numpy(), force.numpy(), torque.numpy())
    for row in zip(*given, strict=True):
        library.raptor_simulate(*map(pointer, row), ctypes.c_float(0.004))
    torch.testing.assert_close(torch.from_numpy(moved), wanted, rtol=5e-6, atol=5e-6)
    still = step(quadrotors, State.from_tensor(state), action, 0.004).as_tensor()
    assert (wanted - still).abs().max() > 1e-3


def vehicle_rows(quadrotors: Quadrotors) -> Array:
    """One row of `raptor_vehicle` for each vehicle."""
    names = "mass gravity inertia inertia_inverse rotor_positions rotor_thrust_directions rotor_torque_directions"
    names += " rotor_thrust_coefficients rotor_torque_constants rotor_time_constants_rising"
    names += " rotor_time_constants_falling action_limit"
    tensors = [getattr(quadrotors, name).reshape(len(quadrotors), -1) for name in names.split()]
    rows = torch.cat(tensors, 1).numpy().astype(np.float32)
    assert rows.shape[1] == 84
    return rows


class RaptorState(ctypes.Structure):
    """`raptor_state`."""

    _fields_ = (
        ("position", ctypes.c_float * 3),
        ("orientation", ctypes.c_float * 4),
        ("linear_velocity", ctypes.c_float * 3),
        ("angular_velocity", ctypes.c_float * 3),
    )


class RaptorTarget(ctypes.Structure):
    """`raptor_target`."""

    _fields_ = (("position", ctypes.c_float * 3), ("linear_velocity", ctypes.c_float * 3), ("yaw", ctypes.c_float))


class RaptorLimits(ctypes.Structure):
    """`raptor_limits`."""

    _fields_ = (("position", ctypes.c_float), ("linear_velocity", ctypes.c_float))


def observed(
    library: ctypes.CDLL, state: RaptorState, target: RaptorTarget, limits: RaptorLimits, previous: Array
) -> Array:
    observation = np.empty(22, np.float32)
    addresses = (ctypes.byref(each) for each in (state, target, limits))
    library.raptor_observe(*addresses, pointer(previous), pointer(observation))
    return observation


def some_state(generator: torch.Generator) -> tuple[RaptorState, State]:
    numbers = torch.randn(17, generator=generator)
    numbers[3:7] /= numbers[3:7].norm()
    parts = [part.tolist() for part in numbers[:13].split((3, 4, 3, 3))]
    arrays = [(ctypes.c_float * len(part))(*part) for part in parts]
    return RaptorState(*arrays), State.from_tensor(numbers[None])


@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.5])
def test_it_observes_what_the_package_observes(library: ctypes.CDLL, yaw: float) -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        state, same = some_state(generator)
        position, velocity, previous = torch.randn(10, generator=generator).split((3, 3, 4))
        triples = [(ctypes.c_float * 3)(*vector.tolist()) for vector in (position, velocity)]
        target = RaptorTarget(*triples, yaw)
        still = hover_reference(position, velocity, yaw)
        wanted = student_observation(sense(same, still, True), previous[None])[0].numpy()
        found = observed(library, state, target, RaptorLimits(0, 0), previous.numpy())
        np.testing.assert_allclose(found, wanted, atol=2e-6)
        bounded = observed(library, state, target, RaptorLimits(0.5, 1), previous.numpy())
        np.testing.assert_allclose(bounded[:3], np.clip(wanted[:3], -0.5, 0.5), atol=2e-6)
        np.testing.assert_allclose(bounded[12:15], np.clip(wanted[12:15], -1, 1), atol=2e-6)
        assert (bounded[3:12] == found[3:12]).all()


def hover_reference(position: torch.Tensor, velocity: torch.Tensor, yaw: float) -> Reference:
    """A target at a position, with a velocity and a yaw."""
    task = Task(references=References(langevin_share=0.0))
    episode = begin_episode(task, recorded().quadrotors("", torch.float32)[:1], torch.Generator().manual_seed(0))
    turned = type("Turned", (Reference,), {"yaw": property(lambda self: torch.tensor([yaw]))})
    return turned(**{**vars(episode.reference), "position": position[None], "velocity": velocity[None]})


def test_states_of_px4_are_turned_into_these_frames(library: ctypes.CDLL) -> None:
    state, same = some_state(torch.Generator().manual_seed(5))
    library.raptor_from_ned(ctypes.byref(state))
    position, orientation = same.position[0].tolist(), same.orientation[0].tolist()
    assert list(state.position) == [position[0], -position[1], -position[2]]
    assert list(state.orientation) == [orientation[0], orientation[1], -orientation[2], -orientation[3]]
    assert list(state.angular_velocity)[1] == -same.angular_velocity[0, 1].item()


class RaptorTiming(ctypes.Structure):
    """`raptor_timing`."""

    _fields_ = (
        ("native_us", ctypes.c_uint32),
        ("intermediate_us", ctypes.c_uint32),
        ("native_every", ctypes.c_uint32),
        ("every_call", ctypes.c_bool),
        ("tolerance_low", ctypes.c_float),
        ("tolerance_high", ctypes.c_float),
        ("initial_previous_action", ctypes.c_float),
    )


class RaptorStatus(ctypes.Structure):
    """`raptor_status`."""

    _fields_ = (
        ("step", ctypes.c_int),
        ("valid", ctypes.c_bool),
        ("jitter", ctypes.c_bool),
        ("biased", ctypes.c_bool),
        ("worst", ctypes.c_float),
        ("mean", ctypes.c_float),
    )


class Executor:
    """The executor in C."""

    def __init__(self, library: ctypes.CDLL, **timing: Any) -> None:
        usual = {"native_us": 10_000, "intermediate_us": 2_500, "tolerance_low": 0.8, "tolerance_high": 1.2}
        self._library, self._memory = library, ctypes.create_string_buffer(4096)
        library.raptor_executor_step.restype = RaptorStatus
        library.raptor_executor_begin(self._memory, ctypes.byref(RaptorTiming(**{**usual, **timing})))

    def step(self, now: int, observation: Array | None = None, fed_back: Array | None = None) -> tuple[Any, ...]:
        """Kind of the step, status, action (NaN where there is none), and the previous action that was seen."""
        seen = np.zeros(22, np.float32) if observation is None else observation.copy()
        action = np.full(4, np.nan, np.float32)
        fed = None if fed_back is None else pointer(fed_back)
        arguments = self._memory, ctypes.c_uint64(now), pointer(seen), fed, pointer(action)
        status = self._library.raptor_executor_step(*arguments)
        return KINDS[status.step], status, action, seen[18:]

    def reset(self) -> None:
        self._library.raptor_executor_reset(self._memory)


KINDS = ("none", "intermediate", "native")
SCHEDULES: dict[str, tuple[dict[str, Any], list[int], str]] = {
    "400 Hz, by time": ({}, [0, 2500, 5000, 7500, 10_000, 12_500], "niiini"),
    "400 Hz, every fourth": ({"native_every": 4}, [0, 2500, 5000, 7500, 10_000, 12_500], "niiini"),
    "250 Hz, every second": ({"native_every": 2, "intermediate_us": 4000}, [0, 4000, 8000, 12_000, 16_000], "ninin"),
    "250 Hz, by time": ({"intermediate_us": 4000}, [0, 4000, 8000, 12_000, 16_000, 24_000], "niinin"),
    "early": ({}, [0, 1000, 2400, 2500, 2600], "n..i."),
    "late": ({}, [0, 30_000, 32_500], "nni"),
    "the same time twice": ({}, [0, 0, 2500, 2500], "n.i."),
    "at every call": ({"every_call": True}, [0, 1, 2, 10_000], "niin"),
    "jitter": ({}, [0, 2600, 5100, 7700, 10_100, 12_700], "niii.n"),
}


@pytest.mark.parametrize(("timing", "times", "kinds"), SCHEDULES.values(), ids=SCHEDULES.keys())
def test_native_and_intermediate_steps_come_when_they_should(
    library: ctypes.CDLL, timing: dict[str, Any], times: list[int], kinds: str
) -> None:
    executor = Executor(library, **timing)
    found = "".join({"none": ".", "intermediate": "i", "native": "n"}[executor.step(t)[0]] for t in times)
    assert found == kinds
    executor.reset()
    assert executor.step(times[-1])[0] == "native"


def test_time_that_runs_backwards_is_refused_and_then_counted_from_there(library: ctypes.CDLL) -> None:
    executor = Executor(library)
    executor.step(50_000)
    kind, status, action, _ = executor.step(20_000)
    assert (kind, status.valid) == ("none", False)
    assert np.isnan(action).all()
    assert executor.step(22_500)[0] == "intermediate"


def test_only_native_steps_move_the_memory_on(library: ctypes.CDLL) -> None:
    policy, generator = load_policy("published"), torch.Generator().manual_seed(0)
    observations = 0.3 * torch.randn(40, 22, generator=generator)
    executor, hidden, native = Executor(library, native_every=4), policy.initial_hidden_state(1), 0
    for i, observation in enumerate(observations):
        kind, _, action, previous = executor.step(2500 * i, observation.numpy())
        seen = torch.cat([observation[:18], torch.from_numpy(previous)])[None]
        with torch.no_grad():
            wanted, following = policy(seen, hidden)
        if kind == "native":
            hidden, native = following, native + 1
        np.testing.assert_allclose(action, wanted[0].clamp(-1, 1), atol=2e-6)
    assert native == 10


def test_the_previous_action_is_the_mean_since_the_last_native_step(library: ctypes.CDLL) -> None:
    executor, seen = Executor(library, native_every=4, initial_previous_action=0.32), []
    fed = [None, *(np.full(4, value, np.float32) for value in (0.1, 0.3, 0.5, 0.7, -0.5, -0.1))]
    for i, action in enumerate(fed):
        seen.append(executor.step(2500 * i, fed_back=action)[3][0])
    # Native at 0 and 4: what is fed back between them is averaged, what comes afterwards begins anew.
    np.testing.assert_allclose(seen, [0.32, 0.1, 0.2, 0.3, 0.4, -0.5, -0.3], atol=1e-6)


@pytest.mark.parametrize(
    ("interval", "odd", "jitter", "biased"),
    [(10_000, 10_000, False, False), (10_000, 12_500, True, False), (13_000, 13_000, True, True)],
    ids=["as wanted", "one late", "all late"],
)
def test_timing_is_judged_once_a_hundred_intervals_are_known(
    library: ctypes.CDLL, interval: int, odd: int, jitter: bool, biased: bool
) -> None:
    executor, now = Executor(library, intermediate_us=interval), 0
    for i in range(101):
        _, status, _, _ = executor.step(now)
        assert i == 100 or not (status.jitter or status.biased)
        now += odd if i == 50 else interval
    assert (status.jitter, status.biased) == (jitter, biased)
    assert status.mean == pytest.approx((99 * interval + odd) / 100 / 10_000, rel=1e-5)
    assert status.worst == pytest.approx(odd / 10_000 if jitter else 0, rel=1e-5)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="something else is there"):
        export_policy(load_policy("published"), folder, "c")
    assert [file.name for file in folder.iterdir()] == ["thesis.tex"]
    (folder / "thesis.tex").rename(tmp_path / "thesis.tex")
    export_policy(load_policy("published"), folder, "c")
    export_policy(load_policy("default"), folder, "c")  # in the place of an older one
    assert (folder / "raptor_weights.h").is_file()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c", "thesis.tex"]


def test_sources_that_do_not_act_as_the_policy_are_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = c_source.weights_header(load_policy("default"))
    monkeypatch.setattr(c_source, "weights_header", lambda policy: header)
    with pytest.raises(ExportError, match="differs from the policy by"):
        export_policy(load_policy("published"), tmp_path / "c", "c")
    monkeypatch.setattr(c_source, "weights_header", lambda policy: "not C")
    with pytest.raises(ExportError, match="does not compile the sources"):
        export_policy(load_policy("published"), tmp_path / "c", "c")
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_the_sources_are_written_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c_source, "find_compiler", lambda: None)
    verified = export_policy(load_policy("published"), tmp_path / "c", "c")
    assert str(verified) == "was not run beside the policy: no C compiler is there (cc, gcc, clang)"
    assert (tmp_path / "c" / "raptor_policy.c").is_file()


def test_the_example_of_the_readme_flies(tmp_path: Path) -> None:
    export_policy(load_policy("default"), tmp_path / "c", "c")
    readme = (c_source.firmware() / "README.md").read_text(encoding="utf-8")
    (tmp_path / "c" / "example.c").write_text(readme.split("```c\n")[1].split("```")[0], encoding="utf-8")
    assert COMPILER is not None
    with c_source.compiled(COMPILER, tmp_path / "c") as library:
        library.begin()
        action, motor = np.zeros(4, np.float32), np.zeros(4, np.float32)
        state, target = RaptorState(), RaptorTarget()
        state.orientation[0] = 1.0
        for step_number in range(8):
            now = ctypes.c_uint64(2500 * step_number)
            library.control(now, ctypes.byref(state), ctypes.byref(target), pointer(action), pointer(motor))
    assert 0 < motor.min() <= motor.max() < 1
