"""How well a model ranks validation users' candidates: what is chosen before the test is chosen by this."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Mask
from msr_adapter.candidate_rows import CandidateRows, read_examples
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, UserError, plural, raise_if_any
from msr_adapter.generation import Backend, CompletionCache
from msr_adapter.metrics import Judgement, evaluate_groups, metric_intervals, paired_values
from msr_adapter.model_scores import ranking_scores
from msr_adapter.progress import Reporter
from msr_adapter.prompt_catalogue import PromptCatalogue
from msr_adapter.prompts import Prompts
from msr_adapter.score.scoring import scorer_of
from msr_adapter.stage_arguments import Client, StageDirs

_LEVEL = 0.95
_BLIND_TO_ORDER = ("hr", "recall", "precision")
"""Metrics that see nothing of the order within the first k: where all candidates are among them, nothing at all."""
_DRAW = 0x5E1EC7
"""Sets the draw of users apart from the pipeline's other draws."""


class Validation:
    """The candidates of some validation users, asked about as test candidates are."""

    def __init__(self, train: TrainConfig, dirs: StageDirs, prompts: Prompts, seed: int) -> None:
        """Draw the users by ``seed``. Raises `UserError` without a validation split."""
        self._train, self._prompts = train, prompts
        examples, wanted = read_examples(dirs.data, "validation"), train.selection.users
        if not len(examples):
            raise UserError(nobody("the validation split is empty"))
        if len(examples) > wanted:
            examples = np.sort(np.random.default_rng([seed, _DRAW]).choice(examples, wanted, replace=False))
        drawn = pa.array(examples)
        chunks = schema.read_chunks(dirs.data / "candidates.parquet", schema.CANDIDATES)
        candidates = pa.concat_tables(chunk.filter(pc.is_in(chunk["example_id"], value_set=drawn)) for chunk in chunks)
        catalogue = PromptCatalogue(dirs.data, images=train.images, items_dir=dirs.items)
        self._rows = CandidateRows.of(candidates, catalogue, dirs.user_summaries, prompts)
        shortest = int(np.unique(self._rows.examples, return_counts=True)[1].min())
        raise_if_any(cannot_tell(train.selection.metric, shortest))

    def judge(self, backend: Backend, cache: CompletionCache, reporter: Reporter) -> Judgement:
        """Ask ``backend`` about every candidate, through ``cache``; a killed judgement resumes.

        Raises `StageError` if a candidate has no answer, or no finite one.
        """
        rows, metric = self._rows, self._train.selection.metric
        with reporter.track("judging", len(rows)) as advance:
            client = Client(self._prompts, backend, cache)
            table = scorer_of(self._train, client, advance, reporter).block(rows)
        scores = ranking_scores(table)
        starts = np.flatnonzero(np.diff(rows.examples, prepend=-1))
        name, _, k = metric.partition("@")
        result = evaluate_groups(scores, rows.labels, np.append(starts, len(rows)), [name], [int(k or 1)])
        values = paired_values(result)
        low, high = metric_intervals(result, values, _LEVEL)[metric]
        error = float(values[metric].std(ddof=1) / np.sqrt(len(starts))) if len(starts) > 1 else 0.0
        loss = (_text_loss if self._train.asks_text else _loss)(table, rows.labels > 0)
        return Judgement(result.means()[metric], low, high, loss, len(starts), len(rows), error)


def nobody(found: str, where: str = "") -> Problem:
    """Return the problem of a choice among checkpoints with nobody to choose by."""
    step = "Give the split a validation part (split.fractions, split.validation_from), or set train.keep: last"
    return Problem(where, "train.keep", f"best, but {found}", "checkpoints are judged on validation users", step)


def cannot_tell(metric: str, candidates: int, where: str = "") -> list[Problem]:
    """Return a problem if ``metric`` is the same for every model on lists of so many ``candidates``."""
    name, _, k = metric.partition("@")
    if name not in _BLIND_TO_ORDER or int(k) < candidates:
        return []
    found = f"{metric} is the same for every checkpoint: validation lists have {plural(candidates, 'candidate')}"
    allowed = f"a cut-off below {candidates}, or a metric that looks at places, such as ndcg@10"
    return [Problem(where, "train.selection.metric", found, allowed, "Choose another metric")]


def _text_loss(table: pa.Table, wanted: Mask) -> float:
    """Return the mean of -log p(answer) over all tokens of the answers of the ``wanted`` rows of RATIOS, in nats."""
    given, tokens = table["given"].to_numpy()[wanted], table["tokens"].to_numpy()[wanted]
    return float(-given.sum() / tokens.sum())


def _loss(table: pa.Table, wanted: Mask) -> float:
    """Return the mean of -log p(right answer), in nats, of SCORES; the right answer is Yes where ``wanted``.

    Positives and negatives weigh the same in total, however many negatives there are.
    """
    logit, mass = table["logit"].to_numpy(), table["answer_mass"].to_numpy()
    right = np.where(wanted, logit, -logit)
    # -log(sigmoid(right) x mass), without overflow: the two answers need not have all of the probability.
    each = np.logaddexp(0, -right) - np.log(np.maximum(mass, np.finfo(np.float64).tiny))
    return float(np.mean([each[kind].mean() for kind in (wanted, ~wanted) if kind.any()]))
