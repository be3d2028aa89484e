"""Chains of jobs: from vehicles to teachers, a student, its figures, its exports and a report, resumable anywhere."""

from raptor.lab.pipeline.document import Pipeline, Stage, load_pipeline
from raptor.lab.pipeline.jobs import JOBS, Job, StageContext, StageOutcome
from raptor.lab.pipeline.plan import Step, make_plan
from raptor.lab.pipeline.run import PipelineSummary, StageSummary, output_of, run_pipeline

__all__ = [
    "JOBS",
    "Job",
    "Pipeline",
    "PipelineSummary",
    "Stage",
    "StageContext",
    "StageOutcome",
    "StageSummary",
    "Step",
    "load_pipeline",
    "make_plan",
    "output_of",
    "run_pipeline",
]
