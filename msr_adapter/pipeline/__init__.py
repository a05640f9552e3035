"""The order of the stages, their fingerprints, and the run folder.

- `stages`: the table of all stages, `STAGES`; `stage_functions`: what runs them
- `fingerprints`: what of a pipeline counts for each stage; `ignored_keys`: what cannot change a result, and why
- `planning`: which stages are wanted, and which of them are up to date; `runner`: brings them up to date
- `repeated_trainings`: the further trainings of a pipeline, their folders and seeds
- `kept`: what costly stages made under other settings
- `run_list`: the runs of a folder, each in a line
- `run_folder`: the folder on disk, its lock and manifests; `stage_context`: what a stage function is handed
- `checks`: everything that can be known before a model is loaded; `weight_checks`: adapters and starting points;
  `engine_checks`: which engine answers for each model;
  `question_checks`: what a question that a text answers cannot be asked with; `image_checks`: templates and several
  images; `later_refusals`: what stages would refuse after hours; `time_estimate`: how long they will take
- `resolve_templates`: templates of models spelled out; `prompt_order`: which order of the question leaves fewer tokens
- `mining_stage`: what an earlier run's model says of its training users; `earlier_run`: that run, opened;
  `mining_checks`: whether it fits
- `embedding_stage`: who embeds items and users, and what retrievers lack
- `run_tracking`: what an experiment tracker is told of a run
- `peak_memory`: peak memory of a stage; `stored_images`: whether images are what the data stage stored
"""

from msr_adapter.pipeline.checks import check, check_made, look_deep, notes
from msr_adapter.pipeline.planning import plan
from msr_adapter.pipeline.runner import RunResult, StageOutcome, State, join, run, write_training_yaml
from msr_adapter.pipeline.stages import STAGE_NAMES, WHOLE

__all__ = [
    "STAGE_NAMES",
    "WHOLE",
    "RunResult",
    "StageOutcome",
    "State",
    "check",
    "check_made",
    "join",
    "look_deep",
    "notes",
    "plan",
    "run",
    "write_training_yaml",
]
