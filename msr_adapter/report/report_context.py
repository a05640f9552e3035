"""What the report is told about the run: its configuration, its folders, and what each stage wrote in its manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from msr_adapter.evaluate.metrics_file import EvaluationFinding


class CheckpointPoint(TypedDict):
    """One checkpoint, judged on the validation users; step 0 is the model before training."""

    step: int
    value: float
    """The metric, with its interval."""
    low: float
    high: float
    loss: float


class Selection(TypedDict):
    """How the checkpoint was chosen."""

    metric: str
    users: int
    candidates: int
    chosen: int
    """Step of the checkpoint that was kept."""
    stopped: int | None
    """Step at which training stopped early."""
    reason: str
    points: Sequence[CheckpointPoint]
    findings: Sequence[EvaluationFinding]


class Measured(TypedDict, total=False):
    """What the trainer measured of itself."""

    seconds: float
    from_step: int
    """First step of this process, after a resume."""
    rows_per_second: float
    tokens_per_second: float | None
    trainable_parameters: int
    parameters: int
    peak_bytes: int
    peak_gpu_bytes: int


class Lengths(TypedDict):
    """Tokens of the texts that a stage wrote."""

    median: float
    p5: float
    p95: float


class FailedRequest(TypedDict):
    """A request without an answer."""

    id: str
    """Of the item or example."""
    reason: str


class RowLengths(TypedDict):
    """Estimated tokens of a training row."""

    median: float
    max: int


class EngineTrial(TypedDict):
    """How an engine compared with transformers."""

    prompts: int
    difference: float
    """The largest of log-odds."""
    allowed: float


class EngineFacts(TypedDict, total=False):
    """Who answered, where it was not the default."""

    name: str
    chosen: str
    """Why `backend: auto` stood for it."""
    adapters: str
    """How they were applied."""
    trial: EngineTrial


class StageSummary(TypedDict, total=False):
    """What a stage says of itself in its manifest, as far as the report reads it; what is absent is left out."""

    # Every stage that asks a model
    requests: int
    distinct_requests: int
    computed: int
    cached: int
    tokens_in: int
    tokens_out: int
    engine: EngineFacts
    # Item and user summaries
    failed: int
    failures: Sequence[FailedRequest]
    """The first ones."""
    refused: int
    empty_answers: int
    cut_by_budget: int
    trimmed: int
    lengths: Lengths
    distinctness: float | None
    """Distinct texts per distinct request."""
    near_identical: float
    """Share of the texts that nearly equal another one."""
    faults: Mapping[str, float | None]
    """Shares of the texts that repeat their prompt, are cut at their budget, or forget what was known before."""
    untitled: Sequence[str]
    """The first items without a title; how many there are: ``untitled_items``."""
    untitled_items: int
    bare: Sequence[str]
    """The first items without title, description, image and summary; how many there are: ``bare_items``."""
    bare_items: int
    # Scoring
    tokens_flat: int
    tokens_processed: int
    tokens_least: int
    images_shown: int
    images_encoded: int
    unshared_rows: int
    unshared_because: str
    answer_mass: float
    rather_something_else: int
    # The length estimate
    cutoff_len: int
    row: RowLengths
    findings: Sequence[EvaluationFinding]
    # Training
    steps: int
    planned_steps: int
    first_loss: float
    last_loss: float
    validation_loss: float | None
    measured: Measured
    selection: Selection


class StageManifest(TypedDict, total=False):
    """A stage's manifest, as far as the report reads it."""

    stage: str
    seconds: float
    peak_bytes: int | None
    peak_gpu_bytes: int | None
    summary: StageSummary


Manifests = Mapping[str, StageManifest]
"""Stage -> its manifest."""


def summary_of(manifests: Manifests, stage: str) -> StageSummary:
    """Return what ``stage`` says of itself; nothing if it did not run."""
    return manifests.get(stage, StageManifest()).get("summary") or StageSummary()


@dataclass(frozen=True)
class PageLimits:
    """What keeps the page small enough to be mailed: about 25 MB at most."""

    users: int = 5_000
    """Users in the explorer."""
    candidates: int = 30
    """Candidates shown of a user, beside the targets."""
    text_bytes: int = 12_000_000
    """UTF-8 bytes of user summaries in the explorer, before compression."""
    explorer_bytes: int = 22_000_000
    """Base64 characters of the explorer's data and images together."""
    image_bytes: int = 11_000_000
    """Bytes of images, before base64."""


@dataclass(frozen=True)
class ReportContext:
    """Only ``name`` is needed; whatever is absent is left out of the report."""

    name: str
    """The pipeline's."""
    config: Mapping[str, object] = field(default_factory=dict)
    """The resolved pipeline, JSON-able."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library -> version."""
    manifests: Manifests = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Stage -> what it is called, in the order of the stages."""
    training_log: Path | None = None
    """LLaMA-Factory's `trainer_log.jsonl`."""
    items_dir: Path | None = None
    """Folder with the item summaries, `items.parquet`."""
    users_dir: Path | None = None
    """Folder with the user summaries, `users.parquet`, and how they grew, `steps.parquet`."""
    user_summaries_dir: Path | None = None
    """Folder whose `users.parquet` has the texts that prompts show, where these were truncated; else ``users_dir``."""
    templates: Path | None = None
    """A folder searched for `report.html.j2` before the bundled one."""
    limits: PageLimits = PageLimits()
