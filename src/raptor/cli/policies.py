"""What is done with policies: `raptor evaluate`, `raptor export` and `raptor card`; and `raptor quickstart`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from raptor.cli import common
from raptor.cli.common import POLICY, Run, argument, option, say, takes_options
from raptor.cli.progress import counting, wide_console
from raptor.core.errors import UserError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from raptor.evaluation import Evaluation
    from raptor.tasks import Task
    from raptor.training import TrainDirectConfig

PUBLISHED, RL_TOOLS, SENSITIVITY, SURVIVAL = "published", "rl-tools", "sensitivity", "survival"
FORMAT_HELP = "onnx, rl-tools, px4 or c for a policy, rl-tools for a teacher."
QUICK, QUICK_SUITES, QUICK_QUADROTORS = 100_000, ("unseen",), 256
"""A training of fewer updates times vehicles is a quick look, and evaluated on less by default."""
FLOWN = ("task.extra.", "task.references.trajectory.")
"""Settings that `raptor evaluate` takes beside policies: everything else of a task is what its suites say."""


def evaluate(
    policies: Annotated[
        list[str], argument("POLICY", f"Each: {POLICY} Also task.extra.NAME.KEY=VALUE, your own terms.")
    ],
    quadrotor: common.Quadrotors = None,
    suite: common.Suites = None,
    reference: common.Reference = None,
    json: Annotated[Path | None, option("--json FILE", "Write every figure with its interval.")] = None,
    plot: Annotated[
        Path | None, option("--plot FILE.png", "Draw the suite reference, survival or sensitivity.")
    ] = None,
    num_quadrotors: common.NumQuadrotors = 2048,
    episodes: Annotated[int, option("--episodes N", "Episodes of each vehicle.", True, min=1)] = 1,
    seed: Annotated[int, option("--seed SEED", "Of the vehicles and their episodes.", True)] = 0,
    device: Annotated[str, option("--device DEVICE", "cpu, cuda, cuda:1.", True)] = "cpu",
    preview: Annotated[
        bool,
        option("--preview/--no-preview", "Show policies that look ahead the target's future, or its present.", True),
    ] = True,
    published: Annotated[bool, option("--published/--no-published", "Evaluate the published one, too.", True)] = True,
    compile: Annotated[
        bool | None,
        option("--compile/--no-compile", "Compile the simulator; by default where that takes less time in all."),
    ] = None,
) -> None:
    """Evaluate policies and the published one: a column each, with 95 % intervals over vehicles.

    All suites take a minute or two for each policy. The same seed gives the same figures.

    With --quadrotor, they fly this vehicle in place of the named and sampled ones: hovering, on figure eights, with
    noise, delays and a wrong thrust, and with each uncertain quantity off by what its description says, else by 20 %.

    ```
    raptor evaluate default -s unseen --num-quadrotors 256     # a quick look
    raptor evaluate runs/mine
    raptor evaluate default large --quadrotor examples/my_quadrotor.yaml --plot sensitivity.png
    raptor evaluate runs/mine default --reference my.csv --plot flown.png    # on a trajectory, see how-to
    raptor evaluate default large --reference circle task.extra.circle.radius=2 task.references.trajectory.scale=0.5
    raptor evaluate default large -s unseen -s figure-eight --json results.json
    raptor evaluate default large -s survival --plot survival.png    # against delay, noise, thrust and wind
    raptor evaluate agile -s agility                           # ever faster figure eights
    raptor evaluate large --extend my_gusts.py task.extra.gusts.strength=0.5    # in a disturbance of your own
    raptor evaluate published -s paper --num-quadrotors 4096
    ```

    In Python: `raptor.evaluate({"mine": policy}, quadrotors=raptor.load_quadrotors("my_quadrotor.yaml"))`.
    """
    console = Console(stderr=True)
    with console.status("loading"):
        from raptor.core.devices import find_device
        from raptor.evaluation import evaluate as run
        from raptor.evaluation.results import column_names
        from raptor.formats import load_policy
        from raptor.quadrotor import load_quadrotors
        from raptor.tasks.task import without_preview

        find_device(device)
        task = _task_of([word for word in policies if word.startswith("task.")], reference)
        trajectory = task.references.trajectory if reference is not None else None
        sources = [word for word in policies if not word.startswith("task.")]
        names = column_names([*([PUBLISHED] if published else []), *sources])
        columns = {name: load_policy(source, device) for source, name in names.items()}
        if not preview:
            for policy in columns.values():
                policy.layout = without_preview(policy.layout)
        vehicles = load_quadrotors(quadrotor) if quadrotor else None
    for file in (json, plot):
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise UserError(f"{file} cannot be written: name a file in a folder that exists")
    drawn = "reference" if reference is not None else SURVIVAL if SURVIVAL in (suite or ()) else SENSITIVITY
    flown = suite or ([drawn] if reference is not None or vehicles is not None else [])
    if plot is not None and drawn not in flown:
        remedy = "give --quadrotor, or --reference for its suite, and leave out --suite or name it"
        raise UserError(f"--plot draws the suite {drawn}: {remedy}; or give --suite survival")
    if trajectory is not None:
        say(f"follows {trajectory.summary}", err=True)
    with counting(console) as progress:
        how = (suite or None, num_quadrotors, episodes, seed, device, progress, compile)
        evaluation = run(columns, *how, quadrotors=vehicles, reference=trajectory, extra=task.extra)
    show_tables(evaluation)
    if json is not None:
        evaluation.save(json)
        say(f"wrote {json}")
    if plot is not None:
        how_seen = None if trajectory is None else (trajectory, vehicles, seed, device)
        _draw(plot, evaluation, drawn, columns, how_seen)
        say(f"wrote {plot}")


def _draw(file: Path, evaluation: Evaluation, suite: str, columns: Mapping[str, Any], how_seen: Any) -> None:
    """Write the picture of a suite; that of a trajectory is flown again as `how_seen` says."""
    from raptor.core.atomic import write_atomically
    from raptor.core.plotting import to_png
    from raptor.evaluation import plots

    if how_seen is None:
        figure = (plots.survival if suite == SURVIVAL else plots.sensitivity)(evaluation)
    else:
        seen = {name: plots.record_reference(policy, *how_seen) for name, policy in columns.items()}
        figure = plots.reference(seen, evaluation.vehicles[: len(plots.SHOWN)] or plots.SHOWN)
    write_atomically(file, to_png(figure))


def _task_of(words: Sequence[str], reference: str | None) -> Task:
    """The settings `FLOWN` of a command line and the trajectory of --reference, as parts of a task."""
    from raptor.config import load_config
    from raptor.tasks import Task

    if others := [word for word in words if not word.startswith(FLOWN)]:
        raise UserError(f"suites have tasks of their own, of which you set {' and '.join(FLOWN)}*: got {others[0]}")
    given = [word.removeprefix("task.") for word in (*common.following(reference, ["task"]), *words)]
    task = load_config(Task, None, given)
    for use in task.idle_trajectories:
        name = use.term.name.replace("_", "-")
        raise UserError(f"task.extra.{use.term.name} is of a trajectory: give --reference {name}, or leave it out")
    return task


def show_tables(evaluation: Evaluation, details: bool = True) -> None:
    """Print the figures of an evaluation, as many policies beside each other as the console is wide."""
    console = wide_console()
    reference = next(iter(evaluation.policies))
    for names in _side_by_side(evaluation, lambda some: some.table(details), console.width, reference):
        console.print(evaluation.only(names).table(details))
    if SENSITIVITY in evaluation.suites:
        for names in _side_by_side(evaluation, lambda some: some.sensitivity_table(), console.width):
            console.print(evaluation.only(names).sensitivity_table())


def _side_by_side(
    evaluation: Evaluation, table_of: Callable[[Evaluation], Table], width: int, reference: str | None = None
) -> Iterator[list[str]]:
    """Groups of policies whose tables fit into a width; the reference begins each, where there is room for it."""
    unlimited = Console(width=10_000)

    def fits(names: list[str]) -> bool:
        return unlimited.measure(table_of(evaluation.only(names))).minimum <= width

    group: list[str] = []
    for name in evaluation.policies:
        if group and not fits([*group, name]):
            yield group
            group = [reference] if reference is not None and fits([reference, name]) else []
        group.append(name)
    yield group


def evaluate_on_own(
    run: Path, config: TrainDirectConfig, suites: Sequence[str] = (), num_quadrotors: int = 512
) -> None:
    """Print how a policy does beside the packaged ones on the vehicles that it was trained around; writes it, too."""
    from raptor.evaluation import GIVEN_SUITES, evaluate
    from raptor.formats import load_policy
    from raptor.formats.policy_files import POLICY_NAMES
    from raptor.training.direct.job import kept_vehicles

    own = load_policy(run, config.device)
    packaged = {name: load_policy(name, config.device) for name in POLICY_NAMES}
    # Not those that see more of the target than is asked of them here, unless it sees the same.
    policies = {name: policy for name, policy in packaged.items() if policy.layout in ({}, own.layout)}
    policies[printable(run.resolve().name)] = own
    vehicles = kept_vehicles(run)
    say("returns so far are of vehicles around yours, in the task of training")
    say("evaluating it beside the packaged policies on the vehicles themselves")
    with counting(Console(stderr=True)) as progress:
        how = (num_quadrotors, 1, 0, config.device, progress)
        trajectory = config.task.references.trajectory
        followed = ["reference"] if trajectory.source else []
        suites = (*(suites or GIVEN_SUITES), *followed)
        evaluation = evaluate(policies, suites, *how, quadrotors=vehicles, reference=trajectory if followed else None)
    show_tables(evaluation)
    say(evaluation.standing([*evaluation.policies][-1]))
    evaluation.save(run / "evaluation.json")


@takes_options
def quickstart(
    run: Run,
    quadrotor: common.Quadrotors = None,
    suite: common.Suites = None,
    num_quadrotors: Annotated[
        int | None, option("--num-quadrotors N", "Vehicles drawn for each suite; else 1024.", min=1)
    ] = None,
) -> None:
    """Train a policy, compare it with the published one, export it, and write report.html: two to three minutes.

    A training of fewer than 100 000 updates times vehicles is evaluated with 256 vehicles on unseen alone, unless told
    otherwise.

    ```
    raptor quickstart -o runs/demo
    raptor quickstart -o runs/look num_updates=60 batch_size=64    # a quick look
    raptor quickstart -o runs/demo --resume                        # after Ctrl-C or a kill
    raptor quickstart -o runs/my5 --quadrotor my5.yaml             # for your own vehicle, see raptor train-direct
    ```

    """
    import torch

    from raptor.evaluation import GIVEN_SUITES, Evaluation
    from raptor.evaluation.results import column_names
    from raptor.evaluation.suites import conditions
    from raptor.lab.pipeline.jobs import Evaluate, Export, Job, Report, StageContext
    from raptor.runs.folder import RunFolder
    from raptor.training.direct import job

    output, again = run.output, run.again
    config = run.load(functools.partial(job.load_run_config, quadrotors=quadrotor or ()))
    own = job.vehicles_around(RunFolder(output, job.LAYOUT), config, run.resume)
    suites, num = extent(config, suite or (GIVEN_SUITES if own else None), num_quadrotors)
    for name in suites:  # a mistake shall not come out after the training
        conditions(name, num, 1, 0, torch.device("cpu"), own.quadrotors if own else None)
    with common.watched(output, run.resume, again) as (show, _):
        summary = job.train_direct(output, config, resume=run.resume, overwrite=run.overwrite, progress=show)
    common.say_result(summary, again)
    figures, names = output / "evaluation.json", column_names([PUBLISHED, str(output)])
    sources: dict[str, dict[str, Any]] = {key: {"": output} for key in ("policy", "training")}
    sources |= {"evaluation": {"": figures}, "policies": {name: source for source, name in names.items()}}

    def carry_out(job: Job) -> str:
        with counting(Console(stderr=True)) as progress:
            return job.run(StageContext(output, sources, False, progress, say)).sentence

    trained = job.load_run_config(output)
    with common.going_on_with(again):
        if own is not None:
            evaluate_on_own(output, config, suites, num)
        else:
            say(f"evaluating it beside the published policy on {', '.join(suites)}: {num} vehicles")
            where: dict[str, Any] = {"device": trained.device, "compile": config.compile}
            carry_out(
                Evaluate(
                    suites=suites, trajectory=trained.task.references.trajectory.source, num_quadrotors=num, **where
                )
            )
            show_tables(Evaluation.load(figures))
        say(f"exported it: {carry_out(Export())}")
        say("writing the report, with flights of both policies")
        title = f"A policy for any quadrotor: {output.name}"
        carry_out(Report(title=title, seed=trained.seed, compile=config.compile))
    files = ("report", "report.html"), ("policy", "checkpoints/best.pt"), ("ONNX", "policy.onnx")
    say("")
    for name, file in (*files, ("evaluation", "evaluation.json")):
        say(f"{name:<12}{output / file}")
    commands = {
        f"raptor card {output}": "what this policy is",
        f"raptor evaluate default large {output}{common.extensions()}": "beside the packaged policies",
        "raptor train-direct -o runs/longer num_updates=2500 segment_steps=500": "a better one, given half an hour",
        "raptor describe my_quadrotor.yaml": "your own quadrotor, from what you know of it",
        f"tensorboard --logdir {output}": "how the training went",
    }
    say("\nwhat to try next:")
    for command, why in commands.items():
        say(f"  {command:<{max(map(len, commands))}}  # {why}")


def extent(
    config: TrainDirectConfig, suites: Sequence[str] | None = None, num: int | None = None
) -> tuple[tuple[str, ...], int]:
    """What a quickstart evaluates on, unless told otherwise: suites, and how many vehicles of each."""
    from raptor.evaluation import SUITES

    quick = config.num_updates * config.batch_size < QUICK
    return tuple(suites or (QUICK_SUITES if quick else SUITES)), num or (QUICK_QUADROTORS if quick else 1024)


def export(
    policy: Annotated[str, argument("POLICY", f"One of {POLICY} Or a teacher, as FOLDER:NUMBER.")],
    format: Annotated[str | None, option("--format -f FORMAT", FORMAT_HELP)] = None,
    output: Annotated[Path | None, option("--output -o FILE|DIR", "File or folder; else beside the policy.")] = None,
) -> None:
    """Write a policy in a format that runs without this package, and verify the file against the original.

    onnx: for onnxruntime. rl-tools: a checkpoint for rl-tools and foundation-policy. px4: policy.tar for mc_raptor.
    c: a folder of C99 sources with a self-test, for firmware of your own.

    The ONNX model takes observation (batch, D) and hidden (batch, H) and gives action and next_hidden, for any batch.
    D is 22 unless the policy observes something else, H its hidden_dim: 16 for default, 64 for large and agile.
    That of a memoryless policy takes observation and gives action.

    ```
    raptor export runs/mine                    # writes runs/mine/policy.onnx
    raptor export published -o exported        # writes exported/published.onnx
    raptor export runs/mine -o hover.onnx
    raptor export default -f px4 -o policy.tar # for PX4's mc_raptor, which is compiled for 22-16-4
    raptor export large -f rl-tools -o exported
    raptor export teachers:3                   # writes teachers/teacher_3.h5, in rl-tools' layout
    ```
    """
    from raptor.export import FORMATS, export_policy
    from raptor.formats import load_expert, load_policy, load_teachers, write_rl_tools_teacher
    from raptor.formats.expert_files import folder_of

    folder, index = folder_of(policy)
    if folder is not None and (folder / "teachers.json").is_file():
        if format not in (None, RL_TOOLS):
            raise UserError(f"a teacher is exported with --format {RL_TOOLS}, got {format!r}")
        expert, number = load_expert(policy), index or 0
        name = load_teachers(folder).records[number].get("name", number)
        path = _target(output, f"teacher_{number}", ".h5") or folder / f"teacher_{number}.h5"
        error = write_rl_tools_teacher(expert, path, str(name))
        say(f"wrote {path}, which differs from the teacher by at most {error:.1e} in its actions")
        return
    format = format or "onnx"
    loaded, source = load_policy(policy), Path(policy).expanduser()
    suffix = FORMATS[format].suffix if format in FORMATS else ".out"
    if not suffix:  # a folder
        path = output or source.with_name(f"{source.resolve().name if source.is_dir() else source.stem}_{format}")
    elif source.is_dir():
        path = _target(output, source.resolve().name, suffix) or source / f"policy{suffix}"
    else:
        path = _target(output, source.stem, suffix) or source.with_suffix(suffix)
    say(f"wrote {path}, which {export_policy(loaded, path, format)}")


def _target(output: Path | None, name: str, suffix: str) -> Path | None:
    """The file that --output asks for: itself, or one of a good name in that folder."""
    is_folder = output is not None and (output.is_dir() or not output.suffix)
    return output / f"{name}{suffix}" if output is not None and is_folder else output


def card(policy: Annotated[str, argument("POLICY", f"One of {POLICY}")]) -> None:
    """Show what a policy is, the command that trained it, its results and its licence.

    ```
    raptor card default
    raptor card runs/mine
    ```
    """
    from raptor.formats import format_card, policy_card

    say(format_card(policy_card(policy)))
