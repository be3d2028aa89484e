"""Regenerate what the README shows: the table of results and the picture of flights.

    python benchmarks/results.py [--num-quadrotors 4096] [--write]

Evaluates the packaged policies beside the published one on test quadrotors and prints the table. With --write it also
writes the rows that decide to README.md, more rows to docs/experiments/results.md, all figures to
docs/experiments/results.json, and the pictures to docs/images/flight.png and survival.png. docs/experiments/results.md
also gets rows from the figures of benchmarks/in_mujoco.py.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from in_mujoco import FIGURES, KEPT, figure, keep
from rich.console import Console

from raptor.cli.progress import counting, wide_console
from raptor.core.atomic import write_atomically
from raptor.core.plotting import to_png
from raptor.evaluation import SUITES, Evaluation, Policy, evaluate, plots
from raptor.evaluation.results import HEADINGS, better, cell, rows
from raptor.evaluation.suites import AGILITY, AGILITY_INTERVALS, SURVIVAL
from raptor.formats import load_policy
from raptor.quadrotor import PLATFORMS

ROOT = Path(__file__).parents[1]
POLICIES = ("published", "default", "large", "agile")
INTERVALS = (10.0, 5.0)
"""Seconds per figure of the flights in the picture."""

DECIDING = re.compile(
    r"unseen: (return|terminated .*|action .*)|figure-eight: \S+s position .*"
    r"|robustness: (noise|20ms-late) (return|terminated .*)"
)
"""Rows of the README."""

MORE = re.compile(
    r"(paper|unseen): (return|terminated .*|action .*)|platforms: (return|terminated .*|action .*|\w+ position .*)"
    r"|figure-eight: \S+s (position|action) .*|robustness: (\S+ (return|terminated .*)|noise action .*)"
    r"|agility: [^ -]+s (position|terminated) .*|agility: \S+-late position .*"
)
"""Rows of docs/experiments/results.md."""

MARKS = "<!-- results:start -->", "<!-- results:end -->"


def markdown(evaluation: Evaluation, wanted: re.Pattern[str]) -> str:
    """The wanted figures as a Markdown table; what beats the first policy beyond both intervals is bold."""
    names = list(evaluation.policies)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for suite in ("paper", "unseen", "platforms", "figure-eight", "robustness", AGILITY):
        for row in rows(evaluation.policies, suite):
            heading = f"{HEADINGS[suite].split(':')[0]}: {row.label}"
            if not wanted.fullmatch(heading):
                continue
            cells = []
            for estimate in row.estimates:
                text = cell(estimate, row.metric)
                cells.append(f"**{text}**" if better(estimate, row.estimates[0], row.metric) else text)
            lines.append(f"| {heading} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fastest(evaluation: Evaluation) -> str:
    """Rows of the shortest figure eight of the suite agility that no start of a platform is lost in, in s."""
    figures, lines = evaluation.policies, []
    for vehicle in PLATFORMS:
        cells = []
        for suites in figures.values():
            lost = {s: suites[AGILITY][f"{s:g}s/{vehicle}/terminated"].value for s in AGILITY_INTERVALS}
            cells.append(next((f"{s:g}" for s in sorted(lost) if lost[s] == 0), "none"))
        lines.append(f"\n| fastest figure without a loss: {vehicle} (s) | {' | '.join(cells)} |")
    return "".join(lines)


def in_mujoco(names: list[str]) -> str:
    """Rows of the table from the figures of benchmarks/in_mujoco.py; none where there are none."""
    if not KEPT.exists():
        return ""
    flown, lines = Evaluation.load(KEPT).policies, []
    for heading, (suite, condition, metric) in FIGURES.items():
        found = [flown[name][suite] if name in flown else None for name in names]
        estimates = [None if each is None else each[f"{condition}/{metric}"] for each in found]
        texts = ["–" if each is None else figure(each, condition, metric) for each in found]
        bold = [better(estimate, estimates[0], metric) for estimate in estimates]
        cells = [f"**{text}**" if wins else text for text, wins in zip(texts, bold, strict=True)]
        lines.append(f"\n| MuJoCo, {heading} | {' | '.join(cells)} |")
    return "".join(lines)


def insert(page: Path, table: str) -> None:
    """Put a table between the marks of a page."""
    start, end = MARKS
    text = page.read_text(encoding="utf-8")
    block = f"{start}\n{table}\n{end}"
    page.write_text(re.sub(f"{start}.*{end}", lambda _: block, text, flags=re.DOTALL), encoding="utf-8")


def draw(policies: dict[str, Policy], path: Path) -> None:
    """Save the flights of each policy on figure eights."""
    flown = {name: plots.record_figure_eights(policy, INTERVALS) for name, policy in policies.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_png(plots.figure_eights(flown)))


def main() -> None:
    """Evaluate, print, and write on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-quadrotors", type=int, default=4096)
    parser.add_argument("--suites", nargs="+", default=[*SUITES, AGILITY, SURVIVAL])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    policies: dict[str, Policy] = {name: load_policy(name) for name in POLICIES}
    with counting(Console(stderr=True)) as progress:
        evaluation = evaluate(policies, arguments.suites, arguments.num_quadrotors, progress=progress)
    wide_console().print(evaluation.table())
    if not arguments.write:
        return
    keep(evaluation, ROOT / "docs" / "experiments" / "results.json")
    insert(ROOT / "README.md", markdown(evaluation, DECIDING))
    more = markdown(evaluation, MORE) + fastest(evaluation) + in_mujoco(list(evaluation.policies))
    insert(ROOT / "docs" / "experiments" / "results.md", more)
    draw(policies, ROOT / "docs" / "images" / "flight.png")
    seen = evaluation.only([name for name in policies if name != "agile"])
    write_atomically(ROOT / "docs" / "images" / "survival.png", to_png(plots.survival(seen)))


if __name__ == "__main__":
    main()
