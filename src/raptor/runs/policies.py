"""Policies of a run: its checkpoints, its best and its final policy, each a file that `load_policy` reads."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from raptor.config import to_dict
from raptor.formats.checkpoint import StudentPolicy, architecture_of, assemble, policy_document, save_policy
from raptor.runs.folder import RunFolder
from raptor.runs.learner import Best, Figures


class PolicyFiles:
    """Checkpoints and policies in the folder of a run; see `raptor.runs.trainer.Checkpointing`.

    Args:
        folder: of the run.
        policy: that is trained; every file holds one of its architecture.
        settings: of the job.
        describe: how the policy of a step was trained, in words.
        milestone: name of the file of the best policy of a phase that is over.
        final: name of the file of the last policy.
    """

    def __init__(
        self,
        folder: RunFolder,
        policy: StudentPolicy,
        settings: Any,
        describe: Callable[[int], str],
        milestone: str | None = None,
        final: str | None = None,
    ) -> None:
        self.folder, self.policy, self.settings, self.describe = folder, policy, settings, describe
        self.milestone, self.final = milestone, final
        folder.checkpoints.keep = settings.keep_checkpoints

    def write(self, step: int, training: Mapping[str, Any]) -> str:
        """Write a checkpoint, which is a policy file too."""
        if not self.folder.writes:
            return ""
        document = policy_document(self.policy, self._card(step, training["validation"]), self.folder.path)
        return self.folder.checkpoints.write(step, {**document, "training": dict(training)})

    def newest_first(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The states that were written, the newest first."""
        for name, document in self.folder.checkpoints.newest_first():
            yield name, document["training"]

    def pass_over(self, name: str, problem: object) -> None:
        """Warn that a checkpoint is of no use."""
        self.folder.checkpoints.pass_over(name, problem)

    def write_best(self, best: Best, milestone: bool) -> None:
        """Write the best policy, or that of a phase that is over."""
        name = self.milestone if milestone else self.folder.layout.best
        if name is not None and self.folder.writes:
            path = self.folder.path / name
            policy = assemble(architecture_of(self.policy), best.weights, path)
            save_policy(policy, path, self._card(best.step, best.figures, best.by))

    def write_final(self, step: int, figures: Figures) -> None:
        """Write the last policy, once."""
        if self.final is not None and self.folder.writes and not (path := self.folder.path / self.final).exists():
            save_policy(self.policy, path, self._card(step, figures))

    def _card(self, step: int, figures: Figures, by: str = "validation") -> dict[str, Any]:
        return {
            "what": self.policy.summary,
            "training": self.describe(step),
            "command": f"raptor {self.folder.layout.job} with the settings below",
            "results": {f"{by} {name}": value for name, value in figures.items()} or "not validated",
            "licence": "MIT",
            "raptor-python": importlib.metadata.version("raptor-python"),
            "settings": to_dict(self.settings),
        }
