"""The same promises on a Ray cluster of two workers, which come and go."""

from __future__ import annotations

import json
import socket

import pytest
import toy_work

from raptor.core.errors import UserError
from raptor.runs.engines import EngineConfig, LostWorkerWarning, make_engine

ray = pytest.importorskip("ray", reason="needs the extra ray")
STORE = 100 * 2**20


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def cluster(ray_settings):
    """A head without room for tasks, two nodes with room for one each, and this process connected to them."""
    from ray.cluster_utils import Cluster

    quick_to_notice = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": quick_to_notice}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def engine(cluster):
    return make_engine(EngineConfig(name="ray", address=cluster.address))


def test_a_task_is_stopped_with_its_checkpoint_and_one_that_waits_for_room_never_begins(
    engine, tmp_path, reports, checkpoint
):
    tasks = {name: {"until": 5, "step": 1, "wait_at": 3} for name in ("a", "b", "not begun")}
    reports.stop_at = {("a", 3), ("b", 3)}
    assert engine.run(toy_work.count, tasks, tmp_path, reports, reports.stop) == {}
    assert [checkpoint(name)["number"] for name in "ab"] == [3, 3]
    assert not reports.of("not begun", "from")
    results = engine.run(toy_work.count, {"a": {"until": 5, "step": 1}}, tmp_path, reports, never)
    assert results["a"]["sum"] == pytest.approx(1.5)
    assert reports.of("a", "from") == [0, 3]
    assert reports.of("a", "number") == [1, 2, 3, 4, 5]


def test_a_user_error_of_a_task_ends_the_run_and_names_the_file_on_the_disk_of_the_driver(engine, tmp_path, reports):
    (tmp_path / "bad" / "checkpoint.json" / "in the way").mkdir(parents=True)
    tasks = {"bad": {}, "other": {}}
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/bad/checkpoint.json: Is a directory$"):
        engine.run(toy_work.write_blindly, tasks, tmp_path, reports, never)
    refused = {"odd": {"until": 5, "step": 3, "refused_at": 3}, "waiting": {"until": 5, "step": 1, "wait_at": 1}}
    with pytest.raises(UserError, match=r"^step must be even, got 3$"):
        engine.run(toy_work.count, refused, tmp_path, reports, never)
    assert reports.of("odd", "number") == [1, 2, 3]
    assert not (tmp_path / "waiting" / "result.json").exists()


def test_files_larger_than_ray_has_memory_for_come_and_go(engine, tmp_path, reports):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "earlier.bin").write_bytes(b"0" * STORE)
    results = engine.run(toy_work.write_much, {"a": {"size": STORE + 2**20}}, tmp_path, reports, never)
    assert results["a"] == {"same": True, "empty": True, "earlier": STORE}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["empty.bin", "much.bin", "result.json"]
    assert (tmp_path / "a" / "much.bin").stat().st_size == STORE + 2**20 + 3


def test_tasks_go_on_from_their_checkpoints_when_a_worker_and_then_a_node_is_lost(cluster, engine, tmp_path, reports):
    plain = {name: {"until": 6, "step": i + 1} for i, name in enumerate(("killed", "lost"))}
    tasks = {"killed": {**plain["killed"], "killed_at": 2}, "lost": {**plain["lost"], "lost_at": 4}}
    nodes = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}

    def watch(name, values):
        reports(name, values)
        if len(nodes) == 2 and 4 in reports.of("lost", "number") and 2 in reports.of("killed", "from"):
            cluster.remove_node(nodes.pop(reports.of("lost", "parent")[0]), allow_graceful=False)

    with pytest.warns(LostWorkerWarning, match=r"^(killed|lost) goes on with another worker") as warned:
        results = engine.run(toy_work.count, tasks, tmp_path / "ray", watch, never)
    assert len(warned) == 2
    assert reports.of("killed", "from") == [0, 2]
    assert reports.of("lost", "from") == [0, 4]
    assert results == make_engine(EngineConfig()).run(toy_work.count, plain, tmp_path / "local", reports, never)
    for name, result in results.items():
        assert json.loads((tmp_path / "ray" / name / "result.json").read_text()) == result


def test_a_cluster_that_does_not_answer_is_refused_before_anything_starts(ray_settings, monkeypatch):
    if ray.is_initialized():
        ray.shutdown()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=f"^no Ray cluster answers at {address} .*refused.*ray start --head"):
            make_engine(EngineConfig(name="ray", address=address))
        silent.listen()
        monkeypatch.setattr("raptor.runs.engines.ray_engine.PATIENCE_S", 2.0)
        with pytest.raises(UserError, match=f"^no Ray cluster answers at {address} within 2 s: .*ray start --head"):
            make_engine(EngineConfig(name="ray", address=address))
    for wrong in ("nonsense", "ray://host:10001", "host:", ""):
        with pytest.raises(UserError, match=r"^engine\.address must be auto, local or host:port, got"):
            make_engine(EngineConfig(name="ray", address=wrong))
