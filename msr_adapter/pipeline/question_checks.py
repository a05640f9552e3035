"""What a question that a text answers cannot be asked with, and what is worth knowing of it beforehand."""

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.family_recognition import model_file
from msr_adapter.metrics import METRICS, ProbabilityMetric
from msr_adapter.pipeline.stage_context import prompts_of

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""A tokenizer has one of these files."""
_SCORED_HERE = "or set evaluate.scorer: null, so that the model on this machine scores"


def check_question(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for every setting under which whole texts cannot be scored."""
    train, scorer = loaded.pipeline.train, loaded.pipeline.evaluate.scorer
    if not train.asks_text:
        return []
    problems = _check_server(loaded, scorer) if scorer is not None and scorer.backend_row.remote else []
    if train.question == "user-text" and train.too_long == "truncate":
        found = f"truncate cuts the text of the user, which is the answer under train.question: {train.question}"
        step = "Set train.too_long: error, and train.text_answer.max_tokens as you like"
        problems.append(Problem(loaded.where("train.too_long"), "train.too_long", found, "error", step))
    return problems


def _check_server(loaded: LoadedPipeline, scorer: ModelConfig) -> list[Problem]:
    """Return a problem for all that keeps prompts from being sent to a server as the tokens of the training."""
    train, problems = loaded.pipeline.train, list[Problem]()
    asked = f"under train.question: {train.question}"

    def add(setting: str, found: str, allowed: str, step: str) -> None:
        problems.append(Problem(loaded.where(setting), setting, found, allowed, step))

    if train.shows_images:
        found = f"a server is asked with prompts of token numbers {asked}, and an image has none"
        add("train.images", found, "false", f"Set train.images: false, which trains without them too, {_SCORED_HERE}")
    if prompts_of(loaded.pipeline).shows_recent:
        found = f"a server is asked with prompts of token numbers {asked}, and images of the history have none"
        add("train.history_images", found, "0", f"Set train.history_images: 0, {_SCORED_HERE}")
    if train.model.backend_row.local and not any(model_file(train.model, name) for name in _TOKENIZERS):
        found = f"a server is asked with prompts of token numbers {asked}, and only the model's tokenizer knows them"
        step = f"Download it (hf download {train.model.path} --include '*.json' '*.model'), {_SCORED_HERE}"
        add("train.model.path", found, "a model whose tokenizer is on this machine", step)
    if scorer.default_system not in (None, train.model.default_system):
        found = f"prompts are those of the training {asked}: this text would not be said"
        add("evaluate.scorer.default_system", found, "null, or as in train.model", "Leave it out")
    return problems


def question_notes(loaded: LoadedPipeline) -> list[str]:
    """Return what is no problem but worth knowing of the question before a run."""
    train, protocol = loaded.pipeline.train, loaded.pipeline.evaluate.protocol
    if not train.asks_text:
        return []
    shown = (
        "whose titles training pairs show as the wrong ones" if train.objective == "dpo" else "and no row shows them"
    )
    told = [
        f"train.question: {train.question}: scores are log-likelihood ratios, no probabilities; "
        f"train.negatives are drawn, {shown}"
    ]
    here = loaded.pipeline.evaluate.scorer is None
    if here and train.model.backend == "auto":
        told.append(f"train.model.backend: auto stands for huggingface under question: {train.question}")
    if here and train.model.backend == "vllm":
        told.append(
            "train.model.backend: vllm computes every prompt whole where texts are scored; huggingface and auto share "
            "their prefixes, and process far fewer tokens"
        )
    unused = [row.name for row in METRICS if isinstance(row, ProbabilityMetric) and row.name in protocol.metrics]
    if unused:
        told.append(f"not reported, as they are of probabilities: {', '.join(unused)}")
    return told
