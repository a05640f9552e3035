"""Fine-tuning the recommender: what is learned, by which weights, and which checkpoint is kept."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from msr_adapter.config.schema.base import (
    MOST_IMAGES,
    MOST_TOKENS,
    MOST_WEIGHT,
    Count,
    Seed,
    StrictModel,
    Weight,
    allowed,
)
from msr_adapter.config.schema.execution import LaunchConfig
from msr_adapter.config.schema.model import ModelConfig
from msr_adapter.config.schema.negatives import TrainNegativesConfig


class SelectionConfig(StrictModel):
    """How checkpoints are judged: by how they rank validation users' candidates, as the trained model is later judged
    on test users'."""

    metric: str = Field(
        "auc",
        pattern=r"^(auc|gauc|(hr|recall|precision|mrr|map|ndcg)@[1-9][0-9]{0,5})$",
        json_schema_extra=allowed(
            "auc, gauc, or hr, recall, precision, mrr, map or ndcg with a cut-off, such as ndcg@10"
        ),
    )
    """Higher is better. It must be able to tell checkpoints apart: hr@21 on lists of 21 is refused."""
    rule: Literal["one-standard-error", "highest"] = "one-standard-error"
    """one-standard-error: the earliest checkpoint whose value is within one standard error (over the validation users)
    of the highest: what is above it by less is chance. highest: the highest, among equals the earliest."""
    users: Count = 500
    """Validation users that are asked about, drawn by the pipeline's seed where there are more."""
    patience: Count | None = None
    """Training stops after so many checkpoints in a row that are no better than the best before them; it waits while
    each is judged, and the model is in memory twice then. null: train to the end, then judge all."""


class LoraConfig(StrictModel):
    """Low-rank adapters."""

    rank: int = Field(8, ge=1, le=65_536)
    """Rank of the adapter matrices."""
    alpha: int | None = Field(None, ge=1, le=1_000_000)
    """Default: twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of adapter inputs dropped in training."""
    target: str = "all"
    """Modules that get an adapter, comma-separated; `all` = every linear layer."""


class PreferenceConfig(StrictModel):
    """How strongly preferences pull. Read when `objective` is `dpo` or `kto`."""

    beta: float = Field(0.1, gt=0, le=MOST_WEIGHT)
    """How closely the model stays at the one that training started from: the larger, the closer."""
    loss: Literal["sigmoid", "orpo", "simpo"] = "sigmoid"
    """Of `dpo`. sigmoid is DPO itself; orpo and simpo compare with no reference model."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs assumed to be the wrong way round; loss `sigmoid`."""
    simpo_gamma: Weight = 0.5
    """Margin that loss `simpo` asks for."""
    supervised: Weight = 0.0
    """Weight of the supervised loss on the right answers, added to the preference loss."""
    right_weight: float = Field(1.0, gt=0, le=MOST_WEIGHT)
    """Weight of the right answers in `kto`."""
    wrong_weight: float = Field(1.0, gt=0, le=MOST_WEIGHT)
    """Weight of the wrong answers in `kto`."""


class FreezeConfig(StrictModel):
    """Which parts of a model with images stay as they are."""

    vision: bool = True
    """The vision tower."""
    projector: bool = True
    """What turns its features into tokens. An adapter method trains all of its weights, once it is not frozen."""
    language: bool = False
    """The language model."""


Objective = Literal["sft", "dpo", "kto", "reward"]
Question = Literal["yes-no", "next-item-text", "user-text"]
Method = Literal["lora", "qlora", "dora", "rslora", "full"]


class AnswersConfig(StrictModel):
    """What the recommender may answer, and how that may be spelt."""

    yes: tuple[str, ...] = ("Yes",)
    """The first is trained; the probabilities of the first tokens of all count together, equal ones once."""
    no: tuple[str, ...] = ("No",)
    """The same for the other answer. No spelling of one side may begin with the token of one of the other."""

    @field_validator("yes", "no", mode="before")
    @classmethod
    def _a_list_will_do(cls, words: Any) -> Any:
        # Below a model that looks at its values first, a list of JSON comes as a list, which strictly is no tuple.
        return tuple(words) if isinstance(words, list) else words

    @model_validator(mode="after")
    def _are_words_of_one_side(self) -> "AnswersConfig":
        every = [*self.yes, *self.no]
        if not (self.yes and self.no) or not all(word.strip() for word in every):
            raise ValueError("each side needs a spelling, and none may be blank")
        if len(set(every)) < len(every):
            raise ValueError("a spelling may stand only once")
        return self

    @property
    def trained(self) -> tuple[str, str]:
        """Return the answers that are trained: yes, no."""
        return self.yes[0], self.no[0]

    @property
    def also(self) -> tuple[tuple[str, ...], ...]:
        """Return the other spellings of each; empty if there are none."""
        more = (self.yes[1:], self.no[1:])
        return more if any(more) else ()


class TextAnswerConfig(StrictModel):
    """The answer of a question that is answered with a text, and how its likelihood becomes a score."""

    max_tokens: int = Field(64, ge=1, le=MOST_TOKENS)
    """Longest answer in tokens; a longer text is cut after a whole word, alike for training and scoring."""
    length: Literal["sum", "mean"] = "sum"
    """What counts of the answer's tokens. sum: their log-likelihood ratios together. mean: the ratio per token, so that
    longer texts count for no more than shorter ones."""
    end_of_turn: bool = False
    """True: the tokens that end the answer count in the ratio too. They are trained in any case."""
    without_evidence: float = Field(0.0, ge=0, le=1)
    """Further training rows, as a share of the others: answers of rows drawn by seed, asked for with the prompt of the
    ratio's second term: without a user, or without a candidate. 0: training never shows that prompt."""
    alone_weight: float = Field(1.0, ge=0, le=2)
    """How much of log p(text alone) is taken off log p(text given the prompt). 1: the ratio. Below, texts that are
    likely anyway keep a part of that. Choose it on validation users: docs/scoring.md."""


class TrainConfig(StrictModel):
    """Move 3: LLaMA-Factory fine-tunes the recommender."""

    @model_validator(mode="before")
    @classmethod
    def _qlora_quantises(cls, values: Any) -> Any:
        """Let `method: qlora` mean 4 bits, in training and wherever the model is loaded, unless the model says 8."""
        model = values.get("model") if isinstance(values, dict) and values.get("method") == "qlora" else None
        if isinstance(model, ModelConfig):
            model = model.model_dump()
        if not isinstance(model, dict) or model.get("quantization", "none") != "none":
            return values
        return {**values, "model": {**model, "quantization": 4}}

    model: ModelConfig
    """The recommender before fine-tuning."""
    start: Path | None = Field(None, json_schema_extra=allowed("the folder of a run, a run's name, or null"))
    """Run whose trained model training goes on from (`demo`: the folder beside this file, else `runs/demo`): DPO after
    SFT, for one. `model` must be the model of that run."""
    objective: Objective = "sft"
    """sft: the right answer. dpo: the right answer rather than the wrong one. kto: each answer by itself, as right or
    wrong. reward: a value head that prefers the right answer, and scores in place of the answers' log-probabilities."""
    preference: PreferenceConfig = PreferenceConfig()
    """Read when `objective` is `dpo` or `kto`."""
    method: Method = "lora"
    """lora: low-rank adapters. qlora: on weights in 4 bits. dora: with directions and lengths apart. rslora: scaled for
    large ranks. full: all weights."""
    lora: LoraConfig = LoraConfig()
    """Read unless `method` is `full`."""
    freeze: FreezeConfig = FreezeConfig()
    """Parts that training leaves alone."""
    images: bool = True
    """False: the candidate's image is left out of training and scoring prompts (an ablation)."""
    history_images: int = Field(0, ge=0, le=MOST_IMAGES)
    """The latest so many items of the history, whose titles and images the recommender's prompt shows beside the
    user's text, in training and scoring; 0 = none. The template says where (`recent`). Needs `images`."""
    question: Question = "yes-no"
    """What the recommender is asked, in training and scoring. yes-no, the paper's: will the user choose this candidate?
    A score is p(yes) / (p(yes) + p(no)). next-item-text: what will the user choose next? A score is the log-likelihood
    ratio of the candidate's title (`next-item-text-answer.j2`): with the user's text against the same prompt without a
    user. user-text: who chooses this item? The ratio of the user's text with the candidate's image and title against
    the prompt without one. docs/scoring.md compares them."""
    text_answer: TextAnswerConfig = TextAnswerConfig()
    """Read when `question` is `next-item-text` or `user-text`."""
    prompt: Literal["recommend", "recommend-image-first"] = "recommend"
    """Template of the question yes-no, in training and scoring. recommend: the user's text comes first, and is computed
    once for all candidates. recommend-image-first: the candidate does, and is computed once for all users asked about
    it; worth it for large images. `msr check` says which one saves more; docs/scoring.md says why."""
    answers: AnswersConfig = AnswersConfig()
    """The two answers. Another first spelling needs a template that asks for it."""
    rows: Literal["parquet", "jsonl"] = "parquet"
    """Format of the training rows: Parquet is about 15 times smaller and written faster."""
    negatives: TrainNegativesConfig = Field(
        TrainNegativesConfig(count=1),
        json_schema_extra=allowed("a count, or a mapping as `evaluate.protocol.negatives`"),
    )
    """Negatives of the training lists: 1 uniform one unless told otherwise."""
    seed: Seed | None = None
    """Of the training alone: first weights of adapters, dropout, the order of the rows. null: the pipeline's. The data,
    the rows and all draws stay the pipeline's."""
    repeats: int = Field(1, ge=1, le=1_000)
    """How often the model is trained on the same rows, each time from a seed of its own: one training says nothing of
    how another would have ended. All are kept and score the test; means are over all, and intervals cover users and
    trainings (docs/training.md). What recommends and is exported is the first."""
    epochs: float = Field(1.0, gt=0, le=1_000_000)
    """Passes over the training rows."""
    max_steps: Count | None = None
    """Overrides `epochs`."""
    batch_size: int = Field(1, ge=1, le=1_000_000)
    """Rows per device and step."""
    gradient_accumulation: int = Field(8, ge=1, le=1_000_000)
    """Steps per update of the weights."""
    batches: Literal["random", "similar-length"] = "random"
    """Which rows share a batch, where all are padded to the longest. similar-length: rows of like length, sorted within
    at most 50 batches, so that little is computed of padding (docs/training.md); `objective: sft`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What training multiplies in; trained weights are float32 in any case. auto: `model.dtype`. bfloat16 is faster on
    a processor that multiplies it natively, and other numbers (docs/training.md); scoring stays in `model.dtype`."""
    learning_rate: float = Field(1e-4, gt=0, le=1_000)
    """Peak learning rate of AdamW."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Schedule of the learning rate."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0, le=1_000)
    """Decoupled weight decay."""
    cutoff_len: int = Field(2048, ge=16, le=MOST_TOKENS)
    """Longest prompt plus answer in tokens, counted exactly before training starts."""
    too_long: Literal["error", "truncate"] = "error"
    """What becomes of longer rows. error: stop before training, with the length to set. truncate: cut the summaries
    of their users, the tail of a text or the oldest entries of a listed history, alike for training and scoring; never
    the question, the image, the title or the answer. Each cut is counted and named. Not the default: a wrong
    `cutoff_len` would cost most of the histories, and what was summarised at length deserves a second look."""
    train_on_prompt: bool = False
    """True: the loss covers the prompt too (the paper's Eq. 2); `objective: sft`."""
    checkpoints: int = Field(10, ge=0, le=1_000_000)
    """How many times the state of the training is saved, evenly spread: a killed training goes on from the last one,
    and `keep: best` has these to choose from. 0: never."""
    checkpoint_steps: Count | None = None
    """Overrides `checkpoints`: saved every so many steps."""
    keep: Literal["last", "best"] = "last"
    """The model that is kept: that of the last step, or of the checkpoint that ranks validation users' candidates best
    (it needs a validation split)."""
    selection: SelectionConfig = SelectionConfig()
    """Read when `keep` is `best`."""
    launch: LaunchConfig = LaunchConfig()
    """On how many devices it trains."""
    overrides: dict[str, Any] = Field({})
    """Further LLaMA-Factory keys, written to the YAML as they are; keys that msr itself sets are refused."""

    @property
    def asks_text(self) -> bool:
        """Return whether the answer is a text whose likelihood counts, and no word of two."""
        return self.question != "yes-no"

    @property
    def scoring_model(self) -> ModelConfig:
        """Return the recommender as it scores.

        `auto` stands for transformers where whole texts are scored: prefixes that it shares are the better part of
        the work there, and vLLM shares none under log-probabilities of prompts.
        """
        return self.model.reference if self.asks_text and self.model.backend == "auto" else self.model

    @property
    def shows_images(self) -> bool:
        """Return whether the question shows the candidate's image."""
        return self.images and self.question != "next-item-text"

    @property
    def compute_dtype(self) -> str:
        """Return what training multiplies in, `auto` being the model's dtype."""
        return self.model.dtype if self.precision == "auto" else self.precision

    @property
    def template(self) -> str:
        """Return the name of the template that asks the question."""
        return {"yes-no": self.prompt, "next-item-text": "next-item-text", "user-text": "user-text"}[self.question]

    @model_validator(mode="after")
    def _there_is_something_to_choose(self) -> "TrainConfig":
        if self.keep == "best" and not self.checkpoints and self.checkpoint_steps is None:
            raise ValueError("keep: best needs checkpoints to choose from; checkpoints is 0")
        if self.keep == "last" and self.selection.patience is not None:
            raise ValueError("selection.patience stops at the best checkpoint; it needs keep: best")
        return self
