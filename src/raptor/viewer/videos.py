"""Videos: recordings, each vehicle in a panel of its own, seen from above at a slant, and vector environments."""

from __future__ import annotations

import importlib.util
import io
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raptor.core.atomic import PathLike, replacing, write_atomically
from raptor.core.errors import UserError
from raptor.core.plotting import COLOURS, FAINT, INK, STYLE
from raptor.environments.collectors import Recording
from raptor.quadrotor.state import rotation_matrix

MAX_VEHICLES, FRAME_RATE_HZ, TRAIL_FRAMES, LAST_FRAME_S = 6, 25, 40, 1.0
MOVIE_RATE_HZ, MAX_GIF_WIDTH = 30, 480  # of environments; pixels: a GIF is large
PIXELS_PER_INCH, PANEL = 96, 3.0  # inches; each vehicle has a square panel
TRAIL, FRONT, TARGET = COLOURS[:3]
SHADES = 24  # steps from each colour to white, which is all that the file can show
AZIMUTH, ELEVATION = math.radians(-60), math.radians(25)
_RIGHT = [-math.sin(AZIMUTH), math.cos(AZIMUTH), 0.0]
_UP = [-math.sin(ELEVATION) * math.cos(AZIMUTH), -math.sin(ELEVATION) * math.sin(AZIMUTH), math.cos(ELEVATION)]
_PROJECTION = np.stack([_RIGHT, _UP], axis=-1)  # orthographic: world (..., 3) to picture (..., 2), right and up
ROOM = (0.4, 2.5)  # m; the least and the most that is shown around the mean target to every side
ARM, ROTOR, MAST = 0.2, 0.1, 0.1  # of a vehicle, as fractions of the room: it is drawn larger than life


class _Frames(NamedTuple):
    """N vehicles at the times of F frames, in metres around each one's mean target."""

    position: np.ndarray  # (F, N, 3)
    rotation: np.ndarray  # (F, N, 3, 3) body -> world
    target: np.ndarray  # (F, N, 3)
    flying: np.ndarray  # (F, N) bool
    time: np.ndarray  # (F,) s


def write_video(path: PathLike, recording: Recording, titles: Sequence[str] = ()) -> Path:
    """Write a recording as an animated GIF (*.gif) that plays in real time, complete or not at all.

    The first `MAX_VEHICLES` vehicles are shown, each with its title, faint from when their episodes are over.
    """
    if Path(path).suffix.lower() != ".gif":
        raise UserError(f"a video is an animated picture that ends in .gif, got {path}: choose another name")
    period = max(math.ceil(100 / FRAME_RATE_HZ), math.ceil(100 * recording.dt - 1e-6)) / 100  # in hundredths, as GIFs
    frames = _frames(recording, period)
    with replacing(path) as temporary, matplotlib.rc_context(STYLE):
        pictures = _pictures(frames, titles)
        first = next(pictures)
        duration = [round(1000 * period)] * (len(frames.time) - 1) + [round(1000 * LAST_FRAME_S)]
        first.save(temporary, format="GIF", save_all=True, append_images=pictures, duration=duration, loop=0)
    return Path(path)


def _frames(recording: Recording, period: float) -> _Frames:
    """The recording at the times of the frames; what is not finite is not drawn, what is lost does not overflow."""
    num_frames = math.floor((len(recording.position) - 1) * recording.dt / period + 1e-6) + 1
    time = period * np.arange(num_frames)
    steps = np.rint(time / recording.dt).astype(int)

    def at_frames(tensor: Tensor) -> np.ndarray:
        values = tensor.detach().cpu().double().numpy()[steps, :MAX_VEHICLES]
        return np.where(np.isfinite(values), values.clip(-1e3, 1e3), np.nan)

    position, target, flying = map(at_frames, (recording.position, recording.target, recording.flying))
    rotation = at_frames(rotation_matrix(recording.orientation)).reshape(*target.shape, 3)
    centre = target.mean(axis=0)
    return _Frames(position - centre, rotation, target - centre, flying > 0, time)


def _pictures(frames: _Frames, titles: Sequence[str]) -> Iterator[Image.Image]:
    num = frames.position.shape[1]
    columns = num if num <= 3 else math.ceil(num / 2)
    rows = math.ceil(num / columns)
    height = PANEL * rows + 0.3
    figure = Figure(figsize=(PANEL * columns, height), dpi=PIXELS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    figure.subplots_adjust(0.01, 0.3 / height, 0.99, 1 - 0.08 / height, wspace=0.02, hspace=0.02)
    flown = np.where(frames.flying[..., None], frames.position, 0.0)
    room = float(np.clip(np.nanmax(np.abs([flown, frames.target])), *ROOM))
    tile = 0.2 if room <= 1.0 else 0.5
    room = tile * math.ceil(room / tile)
    axes = [figure.add_subplot(rows, columns, vehicle + 1) for vehicle in range(num)]
    panels = [_Panel(axis, frames, vehicle, room, tile) for vehicle, axis in enumerate(axes)]
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, y=0.92)
    figure.text(0.99, 0.08 / height, f"tiles of {tile:g} m; vehicles larger than life", ha="right", color=FAINT)
    clock = figure.text(0.01, 0.08 / height, "", weight="bold", animated=True)
    canvas.draw()
    background, palette = canvas.copy_from_bbox(figure.bbox), _palette()
    for frame, time in enumerate(frames.time):
        canvas.restore_region(background)
        for panel in panels:
            panel.draw(frame)
        clock.set_text(f"{time:.2f} s")
        figure.draw_artist(clock)
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        yield drawn.quantize(palette=palette, dither=Image.Dither.NONE)


def _palette() -> Image.Image:
    """White, and the colours of the picture in shades."""
    colours = np.array([to_rgb(colour) for colour in (TRAIL, FRONT, TARGET, INK)])
    shares = np.linspace(0, 1, SHADES, endpoint=False)[:, None, None]
    shades = np.concatenate([np.ones((1, 3)), (colours + shares * (1 - colours)).reshape(-1, 3)])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * shades).astype(np.uint8).tobytes())
    return palette


class _Panel:
    """One vehicle: the floor that stays, and the artists that move."""

    def __init__(self, axis: Axes, frames: _Frames, vehicle: int, room: float, tile: float) -> None:
        self.axis, self.room = axis, room
        self.position, self.rotation, self.target, self.flying = (part[:, vehicle] for part in frames[:4])
        self.lines, self.discs = _vehicle(room)
        axis.set(xlim=(-1.4 * room, 1.4 * room), ylim=(-1.5 * room, 1.3 * room), aspect="equal")
        axis.axis("off")
        places = np.linspace(-room, room, 2 * round(room / tile) + 1)
        along = np.array([[(x, -room, -room), (x, room, -room)] for x in places])
        floor = np.concatenate([along, along[..., [1, 0, 2]]]) @ _PROJECTION
        axis.add_collection(LineCollection(list(floor), colors="#dddddd", linewidths=0.8))
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


def _vehicle(room: float) -> tuple[np.ndarray, np.ndarray]:
    """In the body's frame: arms and mast as lines (3, 2, 3), rotors as polygons (4, 16, 3), the two in front first."""
    angle = np.radians([45, -45, 135, -135])
    hubs = room * ARM * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    mast = np.array([[0, 0, 0], [0, 0, room * MAST]])
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    disc = room * ROTOR * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=-1)
    return np.stack([hubs[[0, 3]], hubs[[1, 2]], mast]), hubs[:, None] + disc


class RecordedVecEnv:
    """A `VecEnv` whose first environment is recorded for `length` steps from every `interval`-th on.

    Its `render()` must give (H, W, 3) uint8, else a `UserError` is raised. Videos are named by their first step; with
    `resume`, steps are counted on from those in the folder.
    """

    def __init__(self, env: Any, folder: Path, length: int, interval: int, resume: bool = False) -> None:
        taken = [int(video.stem.removeprefix("step_")) for video in folder.glob("step_*")] if resume else []
        steps = max(taken, default=-interval) + interval
        self.__dict__.update(_env=env, _folder=folder, _length=length, _interval=interval, _frames=[], num_steps=steps)
        self._frame()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            self.__dict__[name] = value
        else:
            setattr(self._env, name, value)

    def step(self, actions: Any) -> Any:
        """Step the environment, and keep a frame of it while a video is being taken."""
        result = self._env.step(actions)
        if self._frames or self.num_steps % self._interval == 0:
            self._frames.append(self._frame())
        self.num_steps += 1
        if len(self._frames) == self._length:
            self.finish_video()
        return result

    def finish_video(self) -> None:
        """Write the video that is being taken, if there is one."""
        if self._frames:
            write_frames(self._folder / f"step_{self.num_steps - len(self._frames):09d}", self._frames)
            self._frames.clear()

    def _frame(self) -> NDArray[np.uint8]:
        frame = self._env.render() if hasattr(self._env, "render") else None
        if frame is None:
            raise UserError(
                "the environment renders nothing that could be recorded: make it with render_mode='rgb_array', or set "
                "video=false"
            )
        return np.asarray(frame, dtype=np.uint8)


def write_frames(path: Path, frames: Sequence[NDArray[np.uint8]]) -> Path:
    """Write frames (H, W, 3) as PATH.mp4 where `imageio-ffmpeg` is installed, as PATH.gif elsewhere."""
    if all(importlib.util.find_spec(name) is not None for name in ("imageio", "imageio_ffmpeg")):
        import imageio.v2 as imageio

        with tempfile.TemporaryDirectory() as folder:
            movie = Path(folder) / "movie.mp4"  # the encoder writes to a name
            imageio.mimwrite(movie, list(frames), format="FFMPEG", fps=MOVIE_RATE_HZ)
            return write_atomically(path.with_suffix(".mp4"), movie.read_bytes())
    pictures, content = [Image.fromarray(frame) for frame in frames], io.BytesIO()
    for picture in pictures:
        picture.thumbnail((MAX_GIF_WIDTH, MAX_GIF_WIDTH))
    period = round(1000 / MOVIE_RATE_HZ)
    pictures[0].save(content, format="GIF", save_all=True, append_images=pictures[1:], duration=period, loop=0)
    return write_atomically(path.with_suffix(".gif"), content.getvalue())
