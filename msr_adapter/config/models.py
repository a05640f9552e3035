"""The config models: what a pipeline and a protocol may say. Frozen; unknown keys are refused.

Precedence: defaults < `extends:` parents < the file < ``--set``. Relative paths are resolved against the YAML that
names them before these models see them. Each field's documentation stands right under it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


def _allowed(words: str) -> dict[str, Any]:
    """Words for what a field may hold, where those made from its type would mislead."""
    return {"allowed": words}


class Model(BaseModel):
    """Base of all config models."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class Columns(Model):
    """Names of the columns of a generic table; null = found by the well-known aliases."""

    user: str | None = None
    """Column of the user ids, which are text: leading zeros survive."""
    item: str | None = None
    """Column of the item ids, in the log and in the table of items."""
    timestamp: str | None = None
    """Seconds, milliseconds or ISO dates; a log without time is taken in row order."""
    title: str | None = None
    """Column of the item titles."""


class TableSource(Model):
    """A generic log: csv, tsv, jsonl or parquet."""

    kind: Literal["table"]
    """A generic log: csv, tsv, jsonl or parquet."""
    interactions: Path
    """One row per interaction: user, item, timestamp."""
    items: Path | None = None
    """One row per item: item, title. Without it, titles are empty."""
    columns: Columns = Columns()
    """Names of the columns, where they are none of the well-known ones."""


class MicroLensSource(Model):
    """MicroLens-50k/100k as published."""

    kind: Literal["microlens"]
    """MicroLens-50k/100k as published."""
    pairs: Path
    """`*_pairs.csv` (user,item,timestamp) or `*_pairs.tsv` (user<TAB>item item item, oldest first)."""
    titles: Path
    """`*_titles.csv` (item,title)."""


class ShopSource(Model):
    """A generated shop with drawn covers, for demos and tests: the true tastes are known."""

    kind: Literal["shop"]
    """A generated shop."""
    users: int = Field(500, ge=1)
    """Users drawn."""
    items: int = Field(300, ge=30)
    """Items drawn, each with a title and a cover."""
    interactions_per_user: int = Field(12, ge=2)
    """Mean length of a user's log."""
    noise: float = Field(1.0, ge=0)
    """Temperature of the choices: 0 = users always take what they like best; larger = noisier tastes."""


Source = Annotated[TableSource | MicroLensSource | ShopSource, Field(discriminator="kind")]


class KCore(Model):
    """Iterated minimum degrees; 1 keeps everything."""

    users: int = Field(1, ge=1)
    """Fewest interactions a kept user has."""
    items: int = Field(1, ge=1)
    """Fewest interactions a kept item has."""


class Limit(Model):
    """A smaller experiment: samples users (never rows), seeded."""

    users: int | None = Field(None, ge=1)
    """Users drawn uniformly after the k-core."""
    items: int | None = Field(None, ge=2)
    """Most popular items kept, before the k-core."""


class Images(Model):
    """Where item images come from and what happens without one."""

    folder: Path | None = None
    """Holds `{item}.jpg`, `.jpeg`, `.png` or `.webp`. A shop draws its own."""
    missing: Literal["text-only", "placeholder", "error"] = "text-only"
    """An item whose image is absent or unreadable: prompt without image, a grey image, or stop. Always counted."""
    max_pixels: int = Field(589_824, ge=784)
    """Stored images are shrunk to at most this many pixels."""


class Data(Model):
    """Where the log comes from and what is kept of it."""

    source: Source
    """The log and the titles."""
    k_core: KCore = KCore()
    """Drops rare users and items."""
    limit: Limit = Limit()
    """Makes the experiment smaller."""
    images: Images = Images()
    """The items' pictures."""


class Split(Model):
    """Who is trained on and who is tested on."""

    kind: Literal["user-holdout", "leave-last-out"] = "user-holdout"
    """user-holdout: 80/10/10 by user, the last item is the target. leave-last-out: test = last, validation =
    second-last, training targets are earlier; every user is in all three."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Train, validation and test share of users (user-holdout only)."""
    max_history: int = Field(10, ge=1)
    """Latest items before the target that are kept as history."""
    min_history: int = Field(1, ge=1)
    """A target with fewer items before it is no example."""
    train_targets: int = Field(1, ge=1)
    """Latest positions of a training user that become training targets; 1 = the last only, as in the paper."""

    @field_validator("fractions")
    @classmethod
    def _fractions_sum_to_one(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
            raise ValueError(f"{', '.join(map(str, fractions))} are not shares that sum to 1")
        return fractions


class ModelRef(Model):
    """A model in one of the three roles, and everything that decides how a prompt reaches it."""

    path: str
    """`tiny` (bundled, 1M parameters), a local folder, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    template: str = "qwen2_vl"
    """LLaMA-Factory template name; it must be the model's own."""
    default_system: str | None = None
    """Replaces the template's system text; an empty string removes it."""
    image_max_pixels: int = Field(262_144, ge=784)
    """Larger images are shrunk to this many pixels before the model sees them."""
    image_min_pixels: int = Field(1_024, ge=1)
    """Smaller images are enlarged to this many pixels."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights in training and scoring."""
    batch_size: int = Field(32, ge=1)
    """Prompts per forward pass."""
    backend: Literal["huggingface", "scripted"] = "huggingface"
    """`scripted` answers by rule, for tests of the machinery only."""


class ItemSummaries(Model):
    """Move 1: image and title -> text."""

    model: ModelRef
    """Writes the item summaries."""
    mode: Literal["image", "none"] = "image"
    """`none`: an item is its title."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest summary."""


class UserSummaries(Model):
    """Move 2: history -> preference text."""

    model: ModelRef
    """Writes the user summaries."""
    mode: Literal["recurrent", "direct", "none"] = "recurrent"
    """recurrent: block by block; direct: the whole history in one prompt; none: the listed history itself."""
    block: int = Field(3, ge=1)
    """Items per recurrent step; 3 in the paper."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest summary."""


class Summarize(Model):
    """The two summarisers."""

    items: ItemSummaries
    """The item summariser."""
    users: UserSummaries
    """The user summariser."""


class Lora(Model):
    """Low-rank adapters."""

    rank: int = Field(8, ge=1)
    """Rank of the adapter matrices."""
    alpha: int | None = Field(None, ge=1)
    """Default: twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of adapter inputs dropped in training."""
    target: str = "all"
    """Modules that get an adapter, comma-separated; `all` = every linear layer."""


class Train(Model):
    """Move 3: LLaMA-Factory supervised fine-tuning of the recommender."""

    model: ModelRef
    """The recommender before fine-tuning."""
    method: Literal["lora", "full"] = "lora"
    """Train adapters, or all weights."""
    lora: Lora = Lora()
    """Read when `method` is `lora`."""
    images: bool = True
    """False: the candidate's image is left out of training and scoring prompts (an ablation)."""
    negatives: int = Field(1, ge=1)
    """Negatives per positive in training."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training rows."""
    max_steps: int | None = Field(None, ge=1)
    """Overrides `epochs`."""
    batch_size: int = Field(1, ge=1)
    """Rows per device and step."""
    gradient_accumulation: int = Field(8, ge=1)
    """Steps per update of the weights."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Course of the learning rate."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    cutoff_len: int = Field(2048, ge=16)
    """Longest prompt plus answer in tokens; longer rows stop the stage before training starts."""
    train_on_prompt: bool = False
    """True: the loss covers the prompt too (the paper's Eq. 2)."""
    overrides: dict[str, Any] = {}
    """Further LLaMA-Factory keys, written to the YAML as they are; keys that msr itself sets are refused."""


class Negatives(Model):
    """The negatives of a test candidate list."""

    kind: Literal["uniform"] = "uniform"
    """Every item that is not excluded is equally likely."""
    count: int = Field(20, ge=1)
    """Negatives per test user."""
    exclude: Literal["touched"] = "touched"
    """Nothing the user ever interacted with, in any split, is a negative."""


class Confidence(Model):
    """Bootstrap over users."""

    level: float = Field(0.95, gt=0, lt=1)
    """Coverage of the interval."""
    samples: int = Field(1000, ge=100)
    """Bootstrap samples."""


class Protocol(Model):
    """What "good" means: one file in `eval/`."""

    name: str
    """Default: the file's name."""
    target: Literal["last"] = "last"
    """The item that is to be found: the user's last by time."""
    negatives: Negatives = Negatives()
    """What the target is ranked among."""
    metrics: tuple[Literal["auc", "gauc", "hr", "recall", "mrr", "ndcg"], ...] = (
        "auc", "gauc", "hr", "recall", "mrr", "ndcg",
    )  # fmt: skip
    """auc: pooled over users; gauc: mean of per-user AUCs; the others are cut off at each `k`."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = (3, 5, 10)
    """Cut-offs of the ranking metrics."""
    ties: Literal["expected"] = "expected"
    """Ties count with their expected value over all tie orders."""
    confidence: Confidence = Confidence()
    """Intervals over users."""


BaselineName = Literal["random", "popularity", "base"]


class Evaluate(Model):
    """How the trained model is judged."""

    protocol: Protocol = Field(json_schema_extra=_allowed("a protocol's name, its path, or the protocol itself"))
    """Keys of its own are laid over the protocol that an `extends:` parent names."""
    baselines: tuple[BaselineName, ...] = ("random", "popularity", "base")
    """`base` is the recommender before fine-tuning. A generated shop adds the oracle by itself."""


class Pipeline(Model):
    """One experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        json_schema_extra=_allowed("letters, digits, dots, dashes and underscores, a letter or digit first"),
    )
    """Default: the file's name."""
    seed: int = Field(0, ge=0)
    """Decides every draw: users, splits, candidates, order of training rows, bootstrap."""
    run_dir: Path | None = None
    """Default: `runs/<name>` under the working directory."""
    templates: Path | None = Field(None, json_schema_extra=_allowed("a folder, a bundled folder's name, or null"))
    """Searched before the bundled templates."""
    data: Data
    """Where the log comes from and what is kept of it."""
    split: Split = Split()
    """Who is trained on and who is tested on."""
    summarize: Summarize
    """Moves 1 and 2: image -> text, history -> text."""
    train: Train
    """Move 3: fine-tuning the recommender."""
    evaluate: Evaluate
    """How the trained model is judged."""
