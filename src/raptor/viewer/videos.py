"""Flights as an animated picture: each vehicle in a panel of its own, seen from above at a slant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from raptor.core.atomic import PathLike, replacing
from raptor.core.errors import UserError
from raptor.core.plotting import COLOURS, FAINT, INK, STYLE

MOST_VEHICLES = 6
FRAME_RATE_HZ = 25
TRAIL_FRAMES = 40
LAST_FRAME_S = 1.0
PIXELS_PER_INCH = 96
PANEL = 3.0
"""inches, to every side."""
TRAIL, FRONT, TARGET = COLOURS[0], COLOURS[1], COLOURS[2]
SHADES = 24
"""Steps from each colour to white, which is all that the file can show."""

_AZIMUTH, _ELEVATION = math.radians(-60), math.radians(25)
# Orthographic: world (..., 3) to picture (..., 2), right and up.
_PROJECTION = np.array(
    [
        [-math.sin(_AZIMUTH), -math.sin(_ELEVATION) * math.cos(_AZIMUTH)],
        [math.cos(_AZIMUTH), -math.sin(_ELEVATION) * math.sin(_AZIMUTH)],
        [0.0, math.cos(_ELEVATION)],
    ]
)
_ROOM = (0.4, 2.5)
"""m; the least and the most that is shown around the mean target to every side."""
_ARM, _ROTOR, _MAST = 0.2, 0.1, 0.1
"""Sizes of a vehicle as shares of the room: it is drawn larger than life."""


class _Frames(NamedTuple):
    """Flights of N vehicles at the times of F frames, in metres around each one's mean target."""

    position: np.ndarray  # (F, N, 3)
    rotation: np.ndarray  # (F, N, 3, 3) body -> world
    target: np.ndarray  # (F, N, 3)
    flying: np.ndarray  # (F, N) bool
    time: np.ndarray  # (F,) s


def film(
    path: PathLike,
    position: Tensor,
    orientation: Tensor,
    target: Tensor,
    dt: float,
    titles: Sequence[str] = (),
    flying: Tensor | None = None,
) -> Path:
    """Write flights as an animated GIF that plays in real time, complete or not at all.

    Args:
        path: the file (`*.gif`); its folder is created if it is not there.
        position: (S + 1, N, 3) m, world; the first entry is the start. The first `MOST_VEHICLES` vehicles are shown.
        orientation: (S + 1, N, 4) unit quaternion (w, x, y, z), body to world.
        target: (S + 1, N, 3) m, world.
        dt: s between the entries.
        titles: what is written above each vehicle.
        flying: (S + 1, N) bool; a vehicle is drawn faint from when its episode is over. All fly on by default.

    Raises:
        UserError: the name does not end in .gif, or the file cannot be written; what was there is left as it was.
    """
    if Path(path).suffix.lower() != ".gif":
        raise UserError(f"a film is an animated picture that ends in .gif, got {path}: choose another name")
    period = max(math.ceil(100 / FRAME_RATE_HZ), math.ceil(100 * dt - 1e-6)) / 100  # GIF counts in hundredths
    track = _track(position, orientation, target, flying, dt, period)
    with replacing(path) as temporary, matplotlib.rc_context(STYLE):
        pictures = _pictures(track, titles)
        first = next(pictures)
        duration = [round(1000 * period)] * (len(track.time) - 1) + [round(1000 * LAST_FRAME_S)]
        first.save(temporary, format="GIF", save_all=True, append_images=pictures, duration=duration, loop=0)
    return Path(path)


def _track(
    position: Tensor, orientation: Tensor, target: Tensor, flying: Tensor | None, dt: float, period: float
) -> _Frames:
    """The flights at the times of the frames; what is not finite is not drawn, and what is lost does not overflow."""
    num_frames = math.floor((len(position) - 1) * dt / period + 1e-6) + 1
    time = period * np.arange(num_frames)
    steps = np.rint(time / dt).astype(int)

    def at_frames(tensor: Tensor) -> np.ndarray:
        values = tensor.detach().cpu().double().numpy()[steps, :MOST_VEHICLES]
        return np.where(np.isfinite(values), values.clip(-1e3, 1e3), np.nan)

    goal = at_frames(target)
    centre = goal.mean(axis=0)
    return _Frames(
        position=at_frames(position) - centre,
        rotation=_rotation_matrix(at_frames(orientation)),
        target=goal - centre,
        flying=np.ones(goal.shape[:2], bool) if flying is None else at_frames(flying) > 0,
        time=time,
    )


def _rotation_matrix(orientation: np.ndarray) -> np.ndarray:
    """Body to world, (..., 4) -> (..., 3, 3)."""
    w, x, y, z = np.moveaxis(orientation, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def _pictures(track: _Frames, titles: Sequence[str]) -> Iterator[Image.Image]:
    """One frame after the other."""
    num = track.position.shape[1]
    columns = num if num <= 3 else math.ceil(num / 2)
    rows = math.ceil(num / columns)
    height = PANEL * rows + 0.3
    figure = Figure(figsize=(PANEL * columns, height), dpi=PIXELS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    figure.subplots_adjust(0.01, 0.3 / height, 0.99, 1 - 0.08 / height, wspace=0.02, hspace=0.02)
    room, tile = _room(track)
    panels = [
        _Panel(figure.add_subplot(rows, columns, vehicle + 1), track, vehicle, room, tile) for vehicle in range(num)
    ]
    for panel, title in zip(panels, titles, strict=False):
        panel.axis.set_title(title, y=0.92)
    figure.text(0.99, 0.08 / height, f"tiles of {tile:g} m; vehicles larger than life", ha="right", color=FAINT)
    clock = figure.text(0.01, 0.08 / height, "", weight="bold", animated=True)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)

    def picture(frame: int) -> Image.Image:
        canvas.restore_region(background)
        for panel in panels:
            panel.draw(frame)
        clock.set_text(f"{track.time[frame]:.2f} s")
        figure.draw_artist(clock)
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())

    palette = _palette()
    for frame in range(len(track.time)):
        yield picture(frame).quantize(palette=palette, dither=Image.Dither.NONE)


def _palette() -> Image.Image:
    """White, and the colours of the picture in shades."""
    colours = np.array([to_rgb(colour) for colour in (TRAIL, FRONT, TARGET, INK)])
    shares = np.linspace(0, 1, SHADES, endpoint=False)[:, None, None]
    shades = np.concatenate([np.ones((1, 3)), (colours + shares * (1 - colours)).reshape(-1, 3)])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * shades).astype(np.uint8).tobytes())
    return palette


def _room(track: _Frames) -> tuple[float, float]:
    """How much is shown to every side, m, the same for all vehicles; and the size of a tile of the floor, m."""
    flown = np.where(track.flying[..., None], track.position, 0.0)
    room = float(np.clip(np.nanmax(np.abs([flown, track.target])), *_ROOM))
    tile = 0.2 if room <= 1.0 else 0.5
    return tile * math.ceil(room / tile), tile


class _Panel:
    """One vehicle: the floor that stays, and the artists that move."""

    def __init__(self, axis: Axes, track: _Frames, vehicle: int, room: float, tile: float) -> None:
        self.axis, self.room = axis, room
        self.position, self.rotation, self.target, self.flying = (part[:, vehicle] for part in track[:4])
        self.lines, self.discs = _vehicle(room)
        axis.set(xlim=(-1.4 * room, 1.4 * room), ylim=(-1.5 * room, 1.3 * room), aspect="equal")
        axis.axis("off")
        axis.add_collection(LineCollection(list(self._floor(tile)), colors="#dddddd", linewidths=0.8))
        self.drops = LineCollection([], colors=FAINT, linewidths=0.8)
        self.spots = axis.scatter([0, 0], [0, 0], s=14, c=[TARGET, FAINT])
        self.goal = axis.scatter([0], [0], s=60, c=TARGET)
        self.trail = LineCollection([], linewidths=2.0)
        self.arms = LineCollection([], colors=INK, linewidths=2.2)
        self.rotors = PolyCollection([], facecolors=[to_rgba(FRONT, 0.85)] * 2 + [to_rgba(INK, 0.45)] * 2, linewidths=0)
        for collection in (self.drops, self.trail, self.arms, self.rotors):
            axis.add_collection(collection)
        self.moving = (self.drops, self.spots, self.goal, self.trail, self.arms, self.rotors)
        for artist in self.moving:
            artist.set_animated(True)

    def draw(self, frame: int) -> None:
        """Draw what moves as it stands in this frame."""
        position, target = self.position[frame], self.target[frame]
        trail = self.position[max(0, frame - TRAIL_FRAMES) : frame + 1] @ _PROJECTION
        self.trail.set_segments(list(np.stack([trail[:-1], trail[1:]], axis=1)))
        shares = np.linspace(1, 0, len(trail) - 1, endpoint=False)[::-1]
        self.trail.set_color([to_rgba(TRAIL, share) for share in shares])
        both = np.array([target, position])
        below = np.stack([both[:, 0], both[:, 1], np.full(2, -self.room)], axis=-1)
        self.drops.set_segments(np.stack([both, below], axis=1) @ _PROJECTION)
        self.spots.set_offsets(below @ _PROJECTION)
        self.goal.set_offsets(target @ _PROJECTION)
        turned = self.rotation[frame].T
        self.arms.set_segments((position + self.lines @ turned) @ _PROJECTION)
        self.rotors.set_verts((position + self.discs @ turned) @ _PROJECTION)
        for artist in self.moving:
            artist.set_alpha(None if self.flying[frame] else 0.25)
            self.axis.draw_artist(artist)

    def _floor(self, tile: float) -> np.ndarray:
        """Lines (L, 2, 2) of the tiles beneath the vehicle."""
        ends = self.room
        places = np.linspace(-ends, ends, 2 * round(ends / tile) + 1)
        along = np.array([[(x, -ends, -ends), (x, ends, -ends)] for x in places])
        return np.concatenate([along, along[..., [1, 0, 2]]]) @ _PROJECTION


def _vehicle(room: float) -> tuple[np.ndarray, np.ndarray]:
    """In the body's frame: arms and mast as lines (3, 2, 3), rotors as polygons (4, 16, 3), the two in front first."""
    angle = np.radians([45, -45, 135, -135])
    hubs = room * _ARM * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    mast = np.array([[0, 0, 0], [0, 0, room * _MAST]])
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    disc = room * _ROTOR * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=-1)
    return np.stack([hubs[[0, 3]], hubs[[1, 2]], mast]), hubs[:, None] + disc
