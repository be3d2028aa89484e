"""Trajectories from CSV files, arrays and way-points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raptor.core.errors import UserError
from raptor.tasks import Trajectory, trajectory_from_array
from raptor.tasks.splines import minimum_snap
from raptor.tasks.trajectory_files import SPARSE, read_table, recall_copy, settled

TIME = np.arange(0, 8.005, 0.01)
CURVE = np.stack([2 * np.sin(TIME), np.sin(2 * TIME), 0.2 * TIME], axis=1)
SLOPE = np.stack([2 * np.cos(TIME), 2 * np.cos(2 * TIME), 0.2 + 0 * TIME], axis=1)


def write(path, columns, rows, header=None):
    lines = [header or ",".join(columns), *(",".join(f"{x:.9g}" for x in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def moving(table, times):
    t = torch.as_tensor(times)
    return torch.func.jvp(table, (t,), (torch.ones_like(t),))


def test_samples_are_followed_with_their_velocity(tmp_path):
    source = settled(write(tmp_path / "mine.csv", "txyz", np.c_[TIME, CURVE]))
    position, velocity = moving(read_table(source), TIME)
    assert np.abs(position.numpy() - CURVE).max() < 1e-5
    assert np.abs(velocity.numpy() - SLOPE)[1:-1].max() < 1e-3


def test_given_velocities_are_taken_and_let_rows_be_far_apart():
    coarse = slice(None, None, 40)  # every 0.4 s, without them way-points
    source = trajectory_from_array(CURVE[coarse], TIME[coarse], velocity=SLOPE[coarse])
    position, velocity = moving(read_table(source), TIME)
    assert np.abs(position.numpy() - CURVE).max() < 2e-3
    assert np.abs(velocity.numpy() - SLOPE).max() < 2e-2


def test_yaw_turns_on_through_half_a_turn_and_may_be_in_degrees(tmp_path):
    yaw = (np.rad2deg(1.5 * TIME) + 180) % 360 - 180
    source = settled(write(tmp_path / "a.csv", [*"txyz", "yaw_deg"], np.c_[TIME, CURVE, yaw]))
    (_, turned), (_, rate) = moving(read_table(source), TIME)
    assert np.abs(turned.numpy() - 1.5 * TIME).max() < 1e-4
    assert np.abs(rate.numpy() - 1.5).max() < 1e-3


def test_comments_blank_lines_other_orders_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeff# lap of the garden\nx,y,z,t\n\n 0, 0, 0, 10\n0,0,1,10.5\n0,0,2,11\n", encoding="utf-8")
    table = read_table(settled(str(path)))
    assert table.duration == 1.0
    torch.testing.assert_close(table(torch.tensor([0.0, 1.0, 9.0]))[:, 2], torch.tensor([0.0, 2.0, 2.0]))


def test_a_closed_lap_begins_again_and_an_open_one_stands_still_at_its_end():
    around = np.stack([np.sin(np.pi / 2 * TIME), np.cos(np.pi / 2 * TIME), 0 * TIME], axis=1)
    for rows, closed in ((401, True), (301, False)):
        table = read_table(trajectory_from_array(around[:rows], TIME[:rows]))
        assert table.closed == closed
        later, velocity = moving(table, np.array([table.duration + 0.5]))
        expected = around[50] if closed else around[300]
        assert np.abs(later.numpy() - expected).max() < 1e-4
        assert bool(velocity.norm() > 1) == closed


POINTS = np.array([[0, 0, 0], [2, 0, 1], [2, 2, 0], [0, 2, 1]], dtype=float)


@pytest.mark.parametrize("times", [None, np.array([0, 1.0, 3.0, 3.7])])
def test_minimum_snap_goes_through_the_way_points_from_rest_to_rest_and_smoothly(times):
    stamps, curve = minimum_snap(POINTS, times, speed=3.0)
    assert np.abs(curve(stamps)[0] - POINTS).max() < 1e-9
    assert np.abs(curve(stamps[[0, -1]])[1]).max() < 1e-9
    fine = np.linspace(0, stamps[-1], 20_001)
    derivative, h = curve(fine)[0], fine[1]
    for _ in range(3):  # to the jerk, which still changes by little from one place to the next
        derivative = np.gradient(derivative, h, axis=0)
        assert np.abs(np.diff(derivative, axis=0)).max() < 5e-3 * np.abs(derivative).max()
    if times is None:
        assert np.linalg.norm(curve(fine)[1], axis=1).max() == pytest.approx(3.0, rel=1e-3)
    else:
        assert (stamps == times).all()


def test_minimum_snap_of_two_points_is_the_known_polynomial():
    _, curve = minimum_snap(np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([0.0, 2.0]))
    u = np.linspace(0, 1, 11)
    assert np.abs(curve(2 * u)[0][:, 0] - (35 * u**4 - 84 * u**5 + 70 * u**6 - 20 * u**7)).max() < 1e-12


def test_rows_without_times_or_far_apart_are_way_points():
    timed, untimed = trajectory_from_array(POINTS, [0, 1, 2, 3]), trajectory_from_array(POINTS)
    assert SPARSE < 1
    assert read_table(timed).duration == 3.0
    assert Trajectory(untimed, speed=2.0).flight_s == pytest.approx(Trajectory(untimed, speed=1.0).flight_s / 2)
    assert Trajectory(untimed).ramp_s == 0  # it begins at rest


def csv(columns="t,x,y,z", **changes):
    """Rows of a sound file at 1 m/s, some columns replaced."""
    t = np.arange(60) / 50
    values = {"t": t, "x": t, "y": 0 * t, "z": 0 * t, "yaw": t, "vx": 0 * t + 1, "vy": 0 * t, "vz": 0 * t, **changes}
    rows = zip(*(values[name] for name in columns.split(",")), strict=True)
    return "\n".join([columns, *(",".join(map(str, row)) for row in rows)])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (csv("t,x,y"), "line 1: the column z is missing: the columns are t, x, y, z, vx"),
        (csv("t,x,y,z,vx,vz"), "line 1: the column vy is missing"),
        (csv("x,y,z,vx,vy,vz"), "line 1: velocities and yaw rates need a column t"),
        (csv().replace("z", "z_mm", 1), "line 1: there is no column 'z_mm'"),
        (csv().replace(",", ";"), "line 1: there is no column 't;x;y;z'.*separated by commas"),
        (csv("t,x,y,z,z"), "line 1: a column is given twice"),
        ("", "must hold a header"),
        ("t,x,y,z\n1,2,3,4\n", "line 1: at least two rows"),
        (csv() + "\n1.2,0,0", "line 62: 4 numbers are expected, as in the header, got 3"),
        (csv(x=[*range(9), "nan", *range(50)]), "line 11: x must be a finite number, got 'nan'"),
        (csv(y=["-", *range(59)]), "line 2: y must be a finite number, got '-'"),
        (csv(t=[*range(30), *range(30)]), "line 32: t must increase from row to row, got 0 after 29"),
        (csv(y=[0.0] * 30 + [0.5] * 30), "line 32: the position jumps by 0.5 m within 0.02 s"),
        (csv(x=1000 * np.arange(60) / 50), "line 3: the target moves at 1e.03 m/s: positions must be in m, and t in s"),
        (csv(t=np.arange(60) * 20), "line 3: the rows span 1180 s, t must be in s"),
        (csv("t,x,y,z,vx,vy,vz", vx=[1000] * 60), "line 3: the velocity is not that of the change of position"),
        (csv("t,x,y,z,yaw", yaw=np.arange(60) * 6), "line 3: the yaw jumps: it must be in rad.*yaw_deg"),
        (csv("t,x,y,z,yaw,yaw_rate", yaw_rate=[57.3] * 60), "line 3: the yaw_rate is not that of the change of yaw"),
        (csv("t,x,y,z,yaw_rate", yaw_rate=[1] * 60), "line 1: yaw_rate needs a column yaw beside it"),
        ("t,x,y,z,yaw,yaw_rate\n0,0,0,0,0,0\n1,1,0,0,1,1\n", "line 2: rows 0.25 s apart .* take no yaw_rate"),
        ("x,y,z,yaw\n0,0,0,0\n1,0,0,90\n2,0,0,180\n", "line 3: the yaw jumps: it must be in rad"),
        (
            "x,y,z\n0,0,0\n1e6,1,0\n",
            r"without t take 2.187e\+06 s at 1 m/s, over 600 s: positions must be in m",
        ),
        ("t,x,y,z\n0,0,0,0\n1e-9,1,0,0\n", "line 3: the rows span 1e-09 s, t must be in s"),
        (csv(x=[1, *np.arange(1, 60) / 50]), "line 3: the position jumps by 0.98 m within 0.02 s"),
        (
            csv(y=np.arange(60) % 2 * 0.3),
            "near this row no vehicle follows the curve .*, it jumps by 0.3 m: the target",
        ),
        (
            "t,x,y,z\n0,0,0,0\n.001,.001,0,0\n10,1,0,0\n20,5,0,0\n",
            r"line 4: near this .*, it leaves them by 3.8e\+07 m",
        ),
        ("t,x,y,z\n0,0,0,0\n1,0,0,0\n2,40,0,0\n3,40,0,0\n", "line 3: near this row .*, it moves at 52 m/s"),
        ("t,x,y,z,vx,vy,vz\n0,0,0,0,0,0,0\n1,1,0,0,500,0,0\n2,2,0,0,0,0,0\n", "line 3: near .* leaves them by 73"),
        (
            "t,x,y,z,vx,vy,vz,yaw,yaw_rate\n0,0,0,0,1,0,0,0,90\n1,1,0,0,1,0,0,0,90\n",
            "line 2: near .*, it turns at 90 rad/s: yaw must be in rad, yaw_rate in rad/s",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_that_names_the_line(tmp_path, text, complaint):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        Trajectory(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", ["t,x,y,z", "x,y,z", "t,x,y,z,yaw", "t,x,y,z,vx,vy,vz"])
def test_a_sound_file_is_taken(tmp_path, columns):
    (tmp_path / "mine.csv").write_text(csv(columns))
    assert Trajectory(str(tmp_path / "mine.csv")).flight_s > 1


def test_noise_of_a_recorded_flight_is_no_jump():
    noisy = CURVE + 2e-3 * np.random.default_rng(0).standard_normal(CURVE.shape)
    assert read_table(trajectory_from_array(noisy, TIME)).duration == TIME[-1]


def test_long_way_points_in_arrays_wait_for_their_speed():
    source = trajectory_from_array(POINTS * 500)
    with pytest.raises(UserError, match=r"array: way-points without t take .* s at 1 m/s, over 600 s"):
        Trajectory(source)
    assert Trajectory(source, speed=20.0).flight_s < 600


def test_arrays_that_do_not_fit_each_other_are_refused():
    with pytest.raises(UserError, match="takes x y z of shape"):
        trajectory_from_array(CURVE[:, :2], TIME)
    with pytest.raises(UserError, match="takes x y z of shape"):
        trajectory_from_array(CURVE, TIME[:-1])


def test_a_file_that_has_changed_is_not_taken_for_the_one_that_was_meant(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(csv())
    name, fingerprint = settled(str(path)).split("#")
    path.write_text(csv(x=[0.5] * 60))
    assert settled(str(path)) != f"{name}#{fingerprint}"
    assert settled(f"{name}#{fingerprint}") == f"{name}#{fingerprint}"  # still known by its content
    with pytest.raises(UserError, match="is not the one that was meant, its content has changed"):
        settled(f"{name}#0123456789ab")
    path.write_text(csv(x=[0.25] * 60))
    (tmp_path / "trajectory.csv").write_text(csv(x=[0.75] * 60))
    recall_copy(tmp_path, {})
    copied = settled(str(tmp_path / "trajectory.csv")).split("#")[1]
    assert settled(f"gone.csv#{copied}") == f"gone.csv#{copied}"
