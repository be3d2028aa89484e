"""`raptor train-direct`."""

from __future__ import annotations

from raptor.cli import options
from raptor.cli.jobs import say, say_result, watched
from raptor.cli.options import overrides


def train_direct(
    output: options.Output,
    settings: options.Settings = None,
    config: options.Config = None,
    seed: options.Seed = None,
    device: options.Device = None,
    largest_batch: options.LargestBatch = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train a policy through the gradient of the simulator.

    The run is a folder: settings, log, TensorBoard scalars and checkpoints. Ctrl-C writes a checkpoint and stops;
    --resume goes on, also after a kill, to the same result.

    The first start compiles a step of the simulator and of its gradient, which takes about half a minute; later ones
    begin within seconds.

    ```
    raptor train-direct -o runs/mine
    raptor train-direct -o runs/mine --resume       # after Ctrl-C or a kill
    raptor train-direct -o runs/short num_updates=500 batch_size=4096
    raptor train-direct -o runs/wide --config large --device cuda
    raptor train-direct -o runs/again --config runs/mine seed=1
    torchrun --nproc-per-node=4 -m raptor train-direct -o runs/four device=cuda    # four GPUs
    tensorboard --logdir runs                       # watch it
    raptor evaluate runs/mine                       # see how good it is
    ```

    All settings, with their meaning and defaults, are in docs/reference/configuration.md; those of a run in its
    run.yaml. Logs of a run are in its train.log and metrics.jsonl.
    """
    from raptor.training.direct import job

    given = overrides(settings, seed, device)
    again = f"raptor train-direct --output {output} --resume"
    resolved = job.load_run_config(output, config, given, resume)
    with watched(output, resume, again) as (progress, _):
        summary = job.train_direct(
            output, resolved, resume=resume, overwrite=overwrite, progress=progress, largest=largest_batch
        )
    say_result(summary, again)
    say(f"next: raptor evaluate {summary.output}")
