"""`msr` from Python: pipelines and runs as objects, their tables as Polars frames. `import msr_adapter as msr` has it.

pipelines   a pipeline with settings, to be checked and run
runs        a run: its tables, recommendations, scores of pairs
frames      stage tables as frames, and frames as files that commands read
"""

from msr_adapter.api.pipelines import Pipeline, load
from msr_adapter.api.runs import Run, open
from msr_adapter.errors import MsrError, Problem, StageError, UserError

__all__ = ["MsrError", "Pipeline", "Problem", "Run", "StageError", "UserError", "load", "open"]
