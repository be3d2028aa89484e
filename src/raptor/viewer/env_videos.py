"""Videos of any vector environment, taken while it is stepped."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raptor.core.atomic import write_atomically
from raptor.core.errors import UserError

FRAME_RATE_HZ, MAX_GIF_WIDTH = 30, 480  # pixels: a GIF is large


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
            imageio.mimwrite(movie, list(frames), format="FFMPEG", fps=FRAME_RATE_HZ)
            return write_atomically(path.with_suffix(".mp4"), movie.read_bytes())
    pictures, content = [Image.fromarray(frame) for frame in frames], io.BytesIO()
    for picture in pictures:
        picture.thumbnail((MAX_GIF_WIDTH, MAX_GIF_WIDTH))
    period = round(1000 / FRAME_RATE_HZ)
    pictures[0].save(content, format="GIF", save_all=True, append_images=pictures[1:], duration=period, loop=0)
    return write_atomically(path.with_suffix(".gif"), content.getvalue())
