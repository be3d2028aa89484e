"""Chains of jobs: from vehicles to teachers, a student, its figures, its exports and a report, resumable anywhere."""

from raptor.lab.pipeline.document import load_pipeline
from raptor.lab.pipeline.graph import Pipeline, Stage
from raptor.lab.pipeline.jobs import JOBS, Job
from raptor.lab.pipeline.plan import Step, make_plan
from raptor.lab.pipeline.run import PipelineSummary, StageSummary, output_of, run_pipeline
from raptor.lab.pipeline.work import Outcome, Work

__all__ = [
    "JOBS",
    "Job",
    "Outcome",
    "Pipeline",
    "PipelineSummary",
    "Stage",
    "StageSummary",
    "Step",
    "Work",
    "load_pipeline",
    "make_plan",
    "output_of",
    "run_pipeline",
]
