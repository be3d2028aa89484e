"""`engine=ray engine.address=local`: a cluster on this machine for the length of a run."""

from __future__ import annotations

import pytest
import toy_work

from raptor.core.errors import UserError
from raptor.runs.engines import EngineConfig, make_engine

ray = pytest.importorskip("ray", reason="needs the extra ray")


def test_a_cluster_of_this_machine_is_there_for_the_run_and_gone_after_it(ray_settings, tmp_path, reports):
    engine = make_engine(EngineConfig(name="ray", address="local", num_workers=1))
    results = engine.run(
        toy_work.count, {name: {"until": 3, "step": 1} for name in "ab"}, tmp_path, reports, lambda: False
    )
    assert [result["sum"] for result in results.values()] == pytest.approx([0.6, 0.6])
    assert not ray.is_initialized()


def test_a_task_that_this_machine_has_no_room_for_is_refused(ray_settings):
    with pytest.raises(UserError, match=r"^engine\.cpus_per_task must be at most 1 on this machine, got 2$"):
        make_engine(EngineConfig(name="ray", address="local", num_workers=1, cpus_per_task=2.0))
    assert not ray.is_initialized()
