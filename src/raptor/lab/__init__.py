"""Experiments: pipelines of jobs."""
