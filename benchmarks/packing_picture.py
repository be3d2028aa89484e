"""Draw how episodes are packed into sequences.

    python benchmarks/packing_picture.py [--write]

Ten short episodes go through `raptor.rl.imitation.pack`, and what comes out is drawn beside them. With --write, the
picture goes to docs/images/packing.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from raptor.core.atomic import write_atomically
from raptor.core.plotting import COLOURS, FAINT, INK, STYLE, grid, to_png
from raptor.rl.imitation import PackedBatch, pack

ROOT = Path(__file__).parents[1]
EPISODE_STEPS, SEQUENCE_LENGTH, BATCH_SIZE, SEED = 16, 16, 4, 0
LENGTHS = (16, 16, 7, 16, 11, 16, 4, 16, 16, 13)
COLOUR_BY_EPISODE = (*COLOURS, *(tuple(0.5 + 0.5 * part for part in to_rgb(colour)) for colour in COLOURS))
WIDTH = 0.72
"""Of a row of cells, where rows are one apart."""


def packed() -> list[PackedBatch]:
    """The episodes of the picture, in a random order that is always the same."""
    generator = torch.Generator().manual_seed(SEED)
    return pack(torch.tensor(LENGTHS), EPISODE_STEPS, SEQUENCE_LENGTH, BATCH_SIZE, generator)


def cell(axis: Axes, step: int, y: float, episode: int, used: bool = True) -> None:
    """One step of an episode."""
    face, edge = (COLOUR_BY_EPISODE[episode], "white") if used else ("white", COLOUR_BY_EPISODE[episode])
    axis.barh(y, 1 if used else 0.86, WIDTH, left=step + 0.07 * (not used), color=face, edgecolor=edge, lw=0.6)


def number(axis: Axes, step: float, y: float, episode: int) -> None:
    """An episode's number, on its cells."""
    colour = "white" if episode < len(COLOURS) else INK
    axis.text(step, y, str(episode), color=colour, ha="center", va="center", fontsize=8.5, weight="bold")


def draw_flown(axis: Axes, batches: list[PackedBatch]) -> None:
    """The episodes as they are stored: one row each, empty once they are over."""
    taken = set(torch.cat([batch.row.flatten() for batch in batches]).tolist())
    for episode, length in enumerate(LENGTHS):
        axis.barh(episode, EPISODE_STEPS, WIDTH, color="none", edgecolor=FAINT, lw=0.6, ls=":")
        for step in range(length):
            cell(axis, step, episode, episode, episode * EPISODE_STEPS + step in taken)
        number(axis, length // 2 - 0.5, episode, episode)
    axis.set_title("ten episodes, as they were flown")
    axis.set_yticks(range(len(LENGTHS)), [f"episode {episode}" for episode in range(len(LENGTHS))])


def draw_packed(axis: Axes, batches: list[PackedBatch]) -> None:
    """The sequences of all batches, with what their memory begins with."""
    labels: dict[float, str] = {}
    for b, batch in enumerate(batches):
        for s in range(BATCH_SIZE):
            y = b * (BATCH_SIZE + 1) + s + 0.5
            labels[y] = f"sequence {b * BATCH_SIZE + s}"
            draw_sequence(axis, y, batch.row[:, s].tolist(), batch.reset[:, s].tolist())
        axis.text(SEQUENCE_LENGTH + 0.5, b * (BATCH_SIZE + 1) + BATCH_SIZE / 2, f"batch {b}", rotation=270, va="center")
    axis.set_title("packed into two batches of four sequences")
    axis.set_yticks(list(labels), list(labels.values()))


def draw_sequence(axis: Axes, y: float, rows: list[int], resets: list[bool]) -> None:
    """One sequence: the steps of its episodes, and where memory is emptied."""
    begins = [0]
    for place, row in enumerate(rows):
        episode, step = divmod(row, EPISODE_STEPS)
        cell(axis, place, y, episode)
        if place and step == 0:
            begins.append(place)
        if resets[place]:
            axis.plot([place, place], [y - 0.42, y + 0.42], color=INK, lw=2.6, solid_capstyle="butt")
    if rows[0] % EPISODE_STEPS:
        axis.plot(-0.35, y, ">", color="white", markeredgecolor=INK, markersize=6, clip_on=False)
    for first, last in zip(begins, [*begins[1:], len(rows)], strict=True):
        number(axis, (first + last) // 2 - 0.5, y, rows[first] // EPISODE_STEPS)


def picture() -> Figure:
    """Both side by side."""
    batches = packed()
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 2, (9.6, 4.3), width_ratios=(1, 1.08))
        flown, sequences = axes[0]
        draw_flown(flown, batches)
        draw_packed(sequences, batches)
        for axis, last, beyond in ((flown, 9.5, 0.3), (sequences, 9.5, 1.5)):
            axis.set_xlim(-0.8, max(EPISODE_STEPS, SEQUENCE_LENGTH) + beyond)
            axis.set_ylim(last, -0.5)
            axis.grid(False)
            axis.set_xticks([])
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        handles = [
            Line2D([], [], color=INK, lw=2.6, label="an episode begins: memory emptied"),
            Line2D([], [], color="white", marker=">", markeredgecolor=INK, label="begins in mid-flight, memory empty"),
            Patch(facecolor="white", edgecolor=INK, label="left over, not trained on"),
            Patch(facecolor="none", edgecolor=FAINT, ls=":", label="never flown"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, handlelength=1.4)
    return figure


def main() -> None:
    """Say what was packed, and write on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    batches = packed()
    left = sum(LENGTHS) - sum(batch.row.numel() for batch in batches)
    print(f"{sum(LENGTHS)} steps of {len(LENGTHS)} episodes: {len(batches)} batches, {left} steps left over")
    if arguments.write:
        write_atomically(ROOT / "docs" / "images" / "packing.png", to_png(picture()))


if __name__ == "__main__":
    main()
