"""Where tasks are carried out: in this process, in one process for each device, or on a Ray cluster."""

from raptor.runs.engines.config import EngineConfig
from raptor.runs.engines.engine import Engine, LostWorkerWarning, Work, Workplace
from raptor.runs.engines.make import make_engine

__all__ = ["Engine", "EngineConfig", "LostWorkerWarning", "Work", "Workplace", "make_engine"]
