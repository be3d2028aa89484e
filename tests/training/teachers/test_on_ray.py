"""Pre-training on a Ray cluster of two workers, one of which is lost in mid-run."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import short_shards
import torch

import raptor
from raptor.runs.engines import LostWorkerWarning
from raptor.runs.progress import Progress
from raptor.training.teachers.job import pre_train

ray = pytest.importorskip("ray", reason="needs the extra ray")
STORE = 100 * 2**20
LONG = ("shard_size=1", "apg.num_updates=24", "apg.validation_interval=12")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    """A head without room for shards, and two nodes with room for one each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    quick_to_notice = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": quick_to_notice}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_lost_worker_changes_nothing(cluster, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]

    def lose_one(progress: Progress) -> None:
        if 0.2 < progress.step < progress.num_steps - 1 and len(nodes) == 2:
            cluster.remove_node(nodes.pop())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = short_shards.tiny(*LONG, "engine=ray", f"engine.address={cluster.address}")
        summary = pre_train(tmp_path / "ray", config=settings, generate=4, progress=lose_one)
    assert summary.finished
    assert len(nodes) == 1
    assert any(issubclass(warning.category, LostWorkerWarning) for warning in caught)
    pre_train(tmp_path / "local", config=short_shards.tiny(*LONG), generate=4)
    there, here = raptor.load_teachers(tmp_path / "ray"), raptor.load_teachers(tmp_path / "local")
    for ours, theirs in zip(there.layers, here.layers, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
    assert [record["return"] for record in there.records] == [record["return"] for record in here.records]
