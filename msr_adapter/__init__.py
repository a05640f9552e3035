"""MLLM-MSR: a declarative multimodal sequential recommender on top of LLaMA-Factory.

In Python, `import msr_adapter as msr` gives what `__all__` names (docs/python.md): `msr.open("runs/my").metrics`.

From top to bottom, each importing only from those below:
cli              the commands of `msr`, one file each
api              the same from Python: pipelines and runs, whose tables are Polars frames
workflows        commands that cross stages: recommend, export, ablate, previews
pipeline         the stages in order, fingerprints, the run folder
tracking         what a run tells an experiment tracker
report           the page that a run ends with
demo             the demo's tiny model and how it is made
data             logs to splits, examples, candidate lists, images; the audit
summarize        item and user summaries
train            the fine-tuning, from dataset to checkpoint
score            candidates' scores
evaluate         metrics, baselines, comparisons, exports
distributed      workers: processes of this machine, a Ray cluster
embedding        items and users as vectors, by the run's own model or another
backends         who answers prompts: a model loaded here, a server, a script
retrieval        candidates of a user: popular items, neighbours, what is alike, several in one
candidate_requests  what a model is asked about a candidate
candidate_rows   the prompts of candidates, for training and scoring alike
doctor           what this machine has and lacks
stage_arguments  what stages are given: client, folders, job
llamafactory     everything that knows LLaMA-Factory
prompt_catalogue  what prompts show of all items: ids, titles, images
item_images      the images of items in tables
config           pipelines and protocols as data
prompts          templates, rendered
generation       requests, their cache, chains of them
synthetic        the generated dataset
heuristics       popularity, title overlap, item similarity
metrics          ranking metrics, intervals, paired tests
model_scores     what score stages wrote, whatever was asked
schema           the tables that stages exchange
event_schemas    those of a log with events
integrity        whether files are still what a stage wrote
run_folder_mark  which folders msr made
text_tables      delimited text and JSON lines: dialects, and what no reader may pass over
filesystem      the edge to the file system: full disks, pipes, damaged files
history_window   how much of a history is read
errors, files, progress, arrays, system, redaction, seeded_random, version  what everything uses
"""

from typing import TYPE_CHECKING

from msr_adapter.version import __version__

__all__ = ["MsrError", "Pipeline", "Problem", "Run", "StageError", "UserError", "__version__", "load", "open"]

if TYPE_CHECKING:
    from msr_adapter.api import MsrError, Pipeline, Problem, Run, StageError, UserError, load, open
else:
    # The API is imported when a name of it is asked for: all of our own modules import the package.
    def __getattr__(name: str) -> object:
        if name in __all__:
            from msr_adapter import api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
