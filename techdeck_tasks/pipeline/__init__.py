"""Pipelines: definitions, kinds of stages, and the engine that runs them as Celery tasks on Polars.

State is in PostgreSQL, data in an artifact store; messages carry references to both. An application registers
its own stages with `stage`; a definition is read with `load_definition`.
"""

from techdeck_tasks.pipeline.definition import PipelineDefinition, load_definition, parse_definition
from techdeck_tasks.pipeline.registry import StageContext, StageParams, StageResult, stage

__all__ = [
    "PipelineDefinition",
    "StageContext",
    "StageParams",
    "StageResult",
    "load_definition",
    "parse_definition",
    "stage",
]
