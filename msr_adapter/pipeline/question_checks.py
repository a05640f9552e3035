"""What a question that a text answers cannot be asked with, and what is worth knowing of it beforehand."""

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import Problem
from msr_adapter.metrics import METRICS, ProbabilityMetric


def check_question(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for every back end and setting under which whole texts cannot be scored."""
    train, scorer = loaded.pipeline.train, loaded.pipeline.evaluate.scorer
    if not train.asks_text:
        return []
    problems, asked = [], f"train.question: {train.question}"
    roles = {"train.model.backend": train.model} | ({"evaluate.scorer.backend": scorer} if scorer else {})
    for setting, model in roles.items():
        if why := model.backend_row.no_texts:
            found = f"{model.backend} cannot score under {asked}: {why}"
            step = "Set backend: huggingface" if model.backend_row.local else "Set evaluate.scorer: null"
            problems.append(Problem(loaded.where(setting), setting, found, "a back end that tells it", step))
    if train.question == "user-text" and train.too_long == "truncate":
        found = f"truncate cuts the text of the user, which is the answer under {asked}"
        step = "Set train.too_long: error, and train.text_answer.max_tokens as you like"
        problems.append(Problem(loaded.where("train.too_long"), "train.too_long", found, "error", step))
    return problems


def question_notes(loaded: LoadedPipeline) -> list[str]:
    """Return what is no problem but worth knowing of the question before a run."""
    train, protocol = loaded.pipeline.train, loaded.pipeline.evaluate.protocol
    if not train.asks_text:
        return []
    told = [
        f"train.question: {train.question}: scores are log-likelihood ratios, no probabilities; "
        f"train.negatives are drawn, and no training row shows them"
    ]
    if train.model.backend == "auto":
        told.append(f"train.model.backend: auto stands for huggingface under question: {train.question}")
    unused = [row.name for row in METRICS if isinstance(row, ProbabilityMetric) and row.name in protocol.metrics]
    if unused:
        told.append(f"not reported, as they are of probabilities: {', '.join(unused)}")
    return told
