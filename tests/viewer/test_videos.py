"""Videos of rollouts: as many frames as there is time, every vehicle where it flew, complete files or none."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from raptor.core.errors import UserError
from raptor.environments.collectors import Recording
from raptor.viewer.videos import FRONT, PANEL, PIXELS_PER_INCH, TARGET, write_video

WIDTH = round(PANEL * PIXELS_PER_INCH)


def hovering(num_steps: int, num: int, dt: float = 0.01, **others: torch.Tensor) -> Recording:
    """Vehicles that hover half a metre beside their targets, level."""
    target = torch.zeros(num_steps + 1, num, 3)
    orientation = torch.tensor([1.0, 0, 0, 0]).expand(num_steps + 1, num, 4)
    flying = torch.ones(num_steps + 1, num, dtype=torch.bool)
    recording = Recording(target + torch.tensor([0.0, 0.5, 0.0]), orientation, 0 * target, target, flying, dt)
    return dataclasses.replace(recording, **others)


def frames_of(path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        frames, durations = [], []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
    return frames, durations


def pixels_of(frame: np.ndarray, colour: str) -> np.ndarray:
    """Where something of a colour is, (K, 2), to the right and down."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    y, x = np.nonzero(np.abs(frame.astype(int) - wanted).max(axis=-1) < 50)
    return np.stack([x, y], axis=-1)


def middle_of(frame: np.ndarray, colour: str) -> np.ndarray:
    pixels = pixels_of(frame, colour)
    assert len(pixels) > 10
    return pixels.mean(axis=0)


@pytest.mark.parametrize(
    ("num_steps", "dt", "num_frames", "duration"), [(50, 0.01, 13, 40), (8, 0.05, 9, 50), (40, 0.004, 5, 40)]
)
def test_a_video_plays_in_real_time_and_rests_on_its_last_frame(tmp_path, num_steps, dt, num_frames, duration):
    path = write_video(tmp_path / "new" / "flight.gif", hovering(num_steps, 1, dt))
    frames, durations = frames_of(path)
    assert len(frames) == num_frames
    assert durations == [duration] * (num_frames - 1) + [1000]


@pytest.mark.parametrize(("num", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2), (9, 3, 2)])
def test_vehicles_have_panels_side_by_side_up_to_six_of_them(tmp_path, num, columns, rows):
    frames, _ = frames_of(write_video(tmp_path / "a.gif", hovering(0, num)))
    assert frames[0].shape[1] == columns * WIDTH
    assert rows * WIDTH < frames[0].shape[0] < rows * WIDTH + 40


def test_a_vehicle_is_drawn_where_it_is_and_turned_as_it_is(tmp_path):
    flown = hovering(8, 1)
    position = flown.position + torch.linspace(0, 1, 9)[:, None, None] * torch.tensor([0.0, -0.5, 0.5])
    quarter = math.sin(math.pi / 4)
    orientation = flown.orientation.clone()
    orientation[8] = torch.tensor([quarter, 0, 0, quarter])  # its front to the left, away from the viewer
    frames, _ = frames_of(write_video(tmp_path / "a.gif", hovering(8, 1, position=position, orientation=orientation)))
    target = middle_of(frames[0], TARGET)
    before, after = middle_of(frames[0], FRONT), middle_of(frames[2], FRONT)
    assert before[0] > target[0] + 20, "the y axis goes to the right of the picture, and so does the front"
    assert after[1] < target[1] - 40, "up is up"
    still = frames_of(write_video(tmp_path / "b.gif", hovering(8, 1, position=position)))[0]
    assert middle_of(still[2], FRONT)[1] > after[1] + 3, "a front that is turned away from the viewer moves up"


def test_a_vehicle_whose_episode_is_over_is_drawn_faint(tmp_path):
    flying = torch.tensor([[True], *[[False]] * 4])
    frames, _ = frames_of(write_video(tmp_path / "a.gif", hovering(4, 1, flying=flying)))
    assert len(pixels_of(frames[0], FRONT)) > 100
    assert len(pixels_of(frames[1], FRONT)) == 0


def test_titles_stand_above_their_vehicles(tmp_path):
    plain, titled = (
        frames_of(write_video(tmp_path / "a.gif", hovering(0, 2), titles=titles))[0][0]
        for titles in ((), ("", "second"))
    )
    _, x = np.nonzero((plain != titled).any(axis=-1))
    assert x.min() > WIDTH


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_vehicle_that_is_lost_or_not_finite_does_not_disturb_the_others(tmp_path, value):
    position, flying = hovering(8, 2).position.clone(), torch.ones(9, 2, dtype=torch.bool)
    position[4:, 1] = value
    flying[4:, 1] = False
    calm, _ = frames_of(write_video(tmp_path / "a.gif", hovering(8, 2)))
    lost, _ = frames_of(write_video(tmp_path / "b.gif", hovering(8, 2, position=position, flying=flying)))
    assert len(lost) == len(calm) == 3
    for ours, theirs in zip(lost, calm, strict=True):
        assert np.array_equal(ours[:WIDTH, :WIDTH], theirs[:WIDTH, :WIDTH])


def test_five_seconds_of_four_vehicles_fit_into_a_megabyte(tmp_path):
    num_steps = 500
    time = torch.linspace(0, 2 * math.pi, num_steps + 1)[:, None] + torch.arange(4)
    target = torch.stack([time.sin(), (2 * time).sin() / 2, time.cos() / 4], dim=-1)
    tilt = time.cos() / 2
    orientation = torch.stack([(tilt / 2).cos(), (tilt / 2).sin(), 0 * tilt, 0 * tilt], dim=-1)
    flown = hovering(num_steps, 4, position=target.roll(10, 0), orientation=orientation, target=target)
    path = write_video(tmp_path / "a.gif", flown)
    assert path.stat().st_size < 1e6


def test_what_cannot_be_written_is_an_error_and_leaves_what_was_there(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.gif, got .*flight\.mp4: choose another name"):
        write_video(tmp_path / "flight.mp4", hovering(0, 1))
    (tmp_path / "folder").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write .*flight\.gif"):
        write_video(tmp_path / "folder" / "flight.gif", hovering(0, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_leaves_the_old_video_as_it_was(tmp_path):
    resource = pytest.importorskip("resource")
    path = write_video(tmp_path / "a.gif", hovering(0, 1))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a file cannot grow beyond: the write itself fails
    try:
        with pytest.raises(UserError, match=r"cannot write .*a\.gif: "):
            write_video(path, hovering(8, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
