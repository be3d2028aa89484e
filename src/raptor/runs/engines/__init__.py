"""Where tasks run: in this process, in one process for each device, or on a Ray cluster."""

from raptor.runs.engines.engine import Engine, EngineConfig, LostWorkerWarning, Report, Stop, Work, read_result
from raptor.runs.engines.machine import make_engine

__all__ = ["Engine", "EngineConfig", "LostWorkerWarning", "Report", "Stop", "Work", "make_engine", "read_result"]
