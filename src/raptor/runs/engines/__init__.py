"""Where tasks run: in this process, in one process for each device, or on a Ray cluster."""

from raptor.runs.engines.config import EngineConfig
from raptor.runs.engines.engine import Engine, Report, Stop, Work
from raptor.runs.engines.make import make_engine
from raptor.runs.engines.task_queue import LostWorkerWarning, read_result

__all__ = ["Engine", "EngineConfig", "LostWorkerWarning", "Report", "Stop", "Work", "make_engine", "read_result"]
