"""Which checkpoint is kept: judged by ranking, earliest among equals, and training stops when there is no use."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msr_adapter import schema
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.config.schema import SelectionConfig, TrainConfig
from msr_adapter.errors import UserError
from msr_adapter.generation import CompletionCache, Request
from msr_adapter.llamafactory import trainer_callbacks, trainer_entrypoint
from msr_adapter.llamafactory.launcher import Trained
from msr_adapter.llamafactory.nodes import Node
from msr_adapter.llamafactory.trainer_callbacks import FOLDER, StopQuestions, ask
from msr_adapter.metrics import Judgement
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.score import Validation
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import train
from msr_adapter.train.checkpoint_selection import Chooser, best
from msr_adapter.train.training import train_to_end
from msr_adapter.train.working_dir import WorkingDir
from tests.support.checkpoint_folders import write_checkpoint, write_log
from tests.support.paths import ROOT
from tests.support.tiny_run import QUIET, stages, train_config, write_upstream


class Judge:
    """Values weights by the step of their checkpoint, and keeps count."""

    def __init__(self, **values: float) -> None:
        self.values, self.asked = {int(name[1:]): value for name, value in values.items()}, list[int]()

    def __call__(self, folder: Path | None, _: Reporter) -> Judgement:
        step = 0 if folder is None else int(json.loads((folder / "trainer_state.json").read_text())["global_step"])
        self.asked.append(step)
        return judged(self.values[step])


def judged(value: float) -> Judgement:
    return Judgement(value, value - 0.1, value + 0.1, 1 - value, 9, 189)


def chooser(judge: Any, **settings: Any) -> Chooser:
    return Chooser(SelectionConfig(**settings), judge, QUIET)


def checkpoints_at(folder: Path, *steps: int) -> dict[int, Path]:
    return {step: write_checkpoint(folder, step) for step in steps}


def test_the_highest_is_kept_the_earliest_among_equals_and_never_the_untrained() -> None:
    values = {0: 0.9, 2: 0.5, 4: 0.7, 6: 0.7, 8: 0.6}
    assert best({step: judged(value) for step, value in values.items()}) == 4
    assert best({2: judged(0.1)}) == 2


def test_every_checkpoint_is_judged_once_in_the_order_of_training(tmp_path: Path) -> None:
    judge = Judge(s0=0.5, s2=0.6, s4=0.8, s6=0.7)
    choice = chooser(judge)
    choice.look_at({0: None})
    choice.look_at(checkpoints_at(tmp_path, 6, 2, 4))
    choice.look_at({2: tmp_path / "checkpoint-2"})
    assert judge.asked == [0, 2, 4, 6]
    told = choice.outcome(6, 6)
    assert (told["chosen"], told["loss"], told["metric"], told["users"]) == (4, pytest.approx(0.2), "auc", 9)
    assert told["reason"] == "highest auc of 3 checkpoints"
    assert [point["step"] for point in told["points"]] == [0, 2, 4, 6]
    assert told["points"][2] == {"step": 4, "value": 0.8, "low": 0.8 - 0.1, "high": 0.8 + 0.1, "loss": 1 - 0.8}
    assert (told["stopped"], told["findings"]) == (None, [])


def test_a_training_that_does_not_help_is_said_aloud(tmp_path: Path) -> None:
    choice = chooser(Judge(s0=0.6, s2=0.55, s4=0.6))
    choice.look_at({0: None, **checkpoints_at(tmp_path, 2, 4)})
    (finding,) = choice.outcome(4, 4)["findings"]
    assert finding["severity"] == "warning"
    assert "(0.600 against 0.600)" in finding["text"]


def test_patience_counts_checkpoints_that_are_no_better(tmp_path: Path) -> None:
    found = checkpoints_at(tmp_path, 1, 2, 3, 4, 5, 6)
    judge = Judge(s1=0.5, s2=0.6, s3=0.6, s4=0.7, s5=0.7, s6=0.9)
    choice = chooser(judge, patience=2)
    seen = []
    for step, folder in found.items():
        choice.look_at({step: folder})
        seen.append(choice.exhausted())
    assert seen == [False] * 6
    judge.values[6] = 0.1
    again = chooser(judge, patience=2)
    again.look_at(found)
    assert again.exhausted()
    assert again.outcome(6, 12)["reason"] == (
        "highest auc of 6 checkpoints; the earliest of 2 with that value; "
        "training stopped at step 6 of 12, after 2 without a better one"
    )  # fmt: skip
    short = chooser(Judge(s1=0.5, s2=0.4, s3=0.9), patience=1)
    short.look_at(found)  # what came after the stop is never looked at: the choice does not depend on a kill
    assert (sorted(short.points), best(short.points)) == ([1, 2], 1)


def test_the_trainer_waits_for_an_answer_to_its_own_question(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text('{"step": 4, "stop": true}')  # of an earlier trainer
    desk = StopQuestions(tmp_path)
    assert desk.asked() is None
    answers = []
    trainer = threading.Thread(target=lambda: answers.extend([ask(tmp_path, 4), ask(tmp_path, 8)]), daemon=True)
    trainer.start()
    for step, stop in ((4, False), (8, True)):
        deadline = time.monotonic() + 20
        while desk.asked() != step:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(answers) == 0
        desk.answer(step, stop=stop)
        assert desk.asked() is None
    trainer.join(20)
    assert answers == [False, True]
    with pytest.raises(TimeoutError, match="step 12"):
        ask(tmp_path, 12, longest=0.2)


TRAINER = """\
import json, runpy, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.support.checkpoint_folders import write_checkpoint
ask = runpy.run_path({callbacks!r})["ask"]
model = Path("model")
for step in range({start} + 2, 13, 2):
    folder = write_checkpoint(model, step)
    with open(model / "trainer_log.jsonl", "a") as log:
        log.write(json.dumps(dict(current_steps=step, total_steps=12, loss=1 / step)) + "\\n")
    if ask(Path({folder!r}), step):
        break
for name in ("trainer_state.json", "adapter_model.safetensors"):
    (model / name).write_bytes((folder / name).read_bytes())
(model / "train_results.json").write_text('{{"train_loss": 0.5}}')
(model / "processor_config.json").write_text("{{}}")
"""
"""Stands in for LLaMA-Factory: a checkpoint every two steps, and the question whether to go on."""


def trained_by_stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, judge: Judge, *, start: int = 0, trainer: str = TRAINER
) -> tuple[Trained, Chooser]:
    """Train with the stand-in in ``folder``, patience 2."""
    script = folder / "stand_in.py"
    paths = {"tests": str(ROOT), "callbacks": trainer_callbacks.__file__, "folder": FOLDER}
    script.write_text(trainer.format(start=start, **paths))
    monkeypatch.setattr(trainer_entrypoint, "__file__", str(script))
    work = WorkingDir(folder / "unfinished" / "key")
    work.model.mkdir(parents=True, exist_ok=True)
    work.yaml.write_text("")
    choice = chooser(judge, patience=2)
    config = train_config(keep="best", selection={"patience": 2})
    trained = train_to_end(config, Node(), work, folder, choice, QUIET)
    return replace(trained, measured={}), choice


def test_training_stops_when_told_and_the_best_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(s2=0.5, s4=0.8, s6=0.7, s8=0.6)
    trained, choice = trained_by_stand_in(tmp_path, monkeypatch, judge)
    assert (trained.steps, trained.planned) == (8, 12)
    assert judge.asked == [2, 4, 6, 8]
    work = WorkingDir(tmp_path / "unfinished" / "key")
    states = {step: (work.model / f"checkpoint-{step}" / "optimizer.pt").exists() for step in (2, 4, 6, 8)}
    assert states == {2: False, 4: False, 6: True, 8: True}  # what is not gone on from keeps its weights alone
    chosen = best(choice.points)
    (tmp_path / "out").mkdir()
    assert work.hand_over(tmp_path / "out", work.candidates(trained.steps)[chosen]) > 0
    model = tmp_path / "out" / "model"
    assert json.loads((model / "trainer_state.json").read_text())["global_step"] == 4
    assert {path.name for path in model.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "trainer_state.json", "trainer_log.jsonl",
        "train_results.json", "processor_config.json",
    }  # fmt: skip
    steps = [json.loads(line)["current_steps"] for line in (model / "trainer_log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 8]


def test_killed_while_checkpoints_are_judged_the_choice_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"s2": 0.5, "s4": 0.8, "s6": 0.7, "s8": 0.6}
    (tmp_path / "a").mkdir()
    undisturbed, choice = trained_by_stand_in(tmp_path / "a", monkeypatch, Judge(**values))
    (other := tmp_path / "b" / "unfinished" / "key" / "model").mkdir(parents=True)
    checkpoints_at(other, 2, 4, 6)
    write_log(other, 2, 4, 6)
    again, same = trained_by_stand_in(tmp_path / "b", monkeypatch, Judge(**values), start=6)
    assert (again, best(same.points), same.points) == (undisturbed, best(choice.points), choice.points)
    # Killed after the last verdict: the trainer is not even started.
    (ended := tmp_path / "c" / "unfinished" / "key" / "model").mkdir(parents=True)
    checkpoints_at(ended, 2, 4, 6, 8)
    finished, third = trained_by_stand_in(tmp_path / "c", monkeypatch, Judge(**values), trainer="raise SystemExit(1)")
    assert (finished, third.points) == (undisturbed, choice.points)


def test_llamafactory_itself_waits_and_stops(tmp_path: Path) -> None:
    made = stages()
    judge = Judge(s0=0.5, s1=0.7, s2=0.6)
    config = train_config(max_steps=5, checkpoint_steps=1, keep="best", selection={"patience": 1})
    summary = train(config, made, Job(tmp_path, QUIET), tmp_path / "unfinished", judge)
    assert judge.asked == [0, 1, 2]
    assert (summary["steps"], summary["selection"]["chosen"], summary["selection"]["stopped"]) == (2, 1, 2)
    assert summary["validation_loss"] == pytest.approx(0.3)
    assert json.loads((tmp_path / "selection.json").read_text()) == summary["selection"]
    model = tmp_path / "model"
    assert json.loads((model / "trainer_state.json").read_text())["global_step"] == 1
    assert {"adapter_model.safetensors", "processor_config.json", "trainer_log.jsonl"} <= {
        path.name for path in model.iterdir()
    }
    assert not list(model.glob("optimizer*")) + list(model.glob("checkpoint-*"))


def judge_scripted(made: StageDirs, folder: Path, seed: int = 0, **settings: Any) -> tuple[Judgement, list[str]]:
    config = train_config(keep="best", selection=settings)
    backend = ScriptedBackend(trained=True)
    with CompletionCache(folder / f"{len(list(folder.iterdir()))}.sqlite") as cache:
        found = Validation(config, made, Prompts(), seed).judge(backend, cache, QUIET)
    return found, backend.answered


def test_validation_asks_about_validation_candidates_alone(tmp_path: Path) -> None:
    made = stages()
    found, answered = judge_scripted(made, tmp_path)
    rows = list(CandidateRows(made.data, made.users, Prompts(), "validation", images=True))
    identity = ScriptedBackend(trained=True).identity
    requests = [Request(identity, row.prompt, (row.image,) if row.image else (), ("Yes", "No")) for row in rows]
    assert set(answered) == {request.key for request in requests}
    assert (found.users, found.candidates) == (3, 12)
    odds = np.array([answer.choice_logprobs for answer in ScriptedBackend(trained=True).complete(requests)])
    labels, scores = np.array([row.label for row in rows]), odds[:, 0] - odds[:, 1]
    wins = [(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
            for i in np.flatnonzero(labels == 1) for j in np.flatnonzero(labels == 0)]  # fmt: skip
    assert found.value == pytest.approx(np.mean(wins))
    assert found.low <= found.value <= found.high
    assert found.loss == pytest.approx((-odds[labels == 1, 0].mean() - odds[labels == 0, 1].mean()) / 2)


def test_any_ranking_metric_and_no_more_users_than_asked_for(tmp_path: Path) -> None:
    made = stages()
    ranks = [judge_scripted(made, tmp_path, metric=f"hr@{k}")[0].value for k in (1, 2, 3)]
    assert ranks == sorted(ranks)
    one, asked = judge_scripted(made, tmp_path, users=1)
    assert (one.users, one.candidates, len(asked)) == (1, 4, 4)
    assert judge_scripted(made, tmp_path, users=1)[1] == asked
    others = {tuple(judge_scripted(made, tmp_path, seed=seed, users=1)[1]) for seed in range(6)}
    assert len(others) > 1


def test_without_validation_users_nothing_can_be_chosen(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    table = schema.read_table(made.data / "examples.parquet", schema.EXAMPLES)
    kept = table.filter([split != "validation" for split in table["split"].to_pylist()])
    schema.write_table(kept, schema.EXAMPLES, made.data / "examples.parquet")
    with pytest.raises(UserError, match="the validation split is empty"):
        judge_scripted(made, tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": "best", "checkpoints": 0}, "checkpoints to choose from"),
        ({"selection": {"patience": 2}}, "it needs keep: best"),
        ({"keep": "best", "selection": {"metric": "ndcg"}}, "metric"),
        ({"keep": "best", "selection": {"metric": "auc@5"}}, "metric"),
        ({"keep": "best", "selection": {"metric": "hr@0"}}, "metric"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig(model={"path": "tiny"}, **settings)


def with_errors(error: float, **values: float) -> Any:
    class Judged(Judge):
        def __call__(self, folder: Path | None, reporter: Reporter) -> Judgement:
            return replace(super().__call__(folder, reporter), error=error)

    return Judged(**values)


def test_the_earliest_within_one_standard_error_is_kept_and_said(tmp_path: Path) -> None:
    choice, saved = chooser(with_errors(0.03, s2=0.6, s4=0.775, s6=0.79, s8=0.8)), checkpoints_at(tmp_path, 2, 4, 6, 8)
    choice.look_at(saved)
    told = choice.outcome(8, 8)
    assert (told["chosen"], told["highest"], told["error"], told["rule"]) == (4, 8, 0.03, "one-standard-error")
    assert told["loss"] == pytest.approx(1 - 0.775)
    assert told["reason"] == (
        "earliest of 4 checkpoints within one standard error (0.0300) of the highest auc, 0.8000 at checkpoint 8"
    )
    highest = chooser(with_errors(0.03, s2=0.6, s4=0.775, s6=0.79, s8=0.8), rule="highest")
    highest.look_at(saved)
    assert highest.outcome(8, 8)["chosen"] == 8
    assert highest.outcome(8, 8)["reason"] == "highest auc of 4 checkpoints"


def test_the_untrained_model_is_never_within_the_error(tmp_path: Path) -> None:
    choice = chooser(with_errors(1.0, s0=0.5, s2=0.4, s4=0.6))
    choice.look_at({0: None, **checkpoints_at(tmp_path, 2, 4)})
    assert choice.outcome(4, 4)["chosen"] == 2


def test_a_metric_that_is_the_same_for_all_is_a_warning(tmp_path: Path) -> None:
    choice = chooser(Judge(s0=1.0, s2=1.0, s4=1.0))
    choice.look_at({0: None, **checkpoints_at(tmp_path, 2, 4)})
    (finding,) = choice.outcome(4, 4)["findings"]
    assert finding["severity"] == "warning"
    assert finding["text"].startswith("auc is 1.000 for every checkpoint: it does not tell them apart")


def test_the_error_is_the_bootstrapped_one(tmp_path: Path) -> None:
    made = stages()
    found, _ = judge_scripted(made, tmp_path)
    assert 0 < found.error < 0.5
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("metric", ["hr@4", "recall@5", "precision@9"])
def test_a_metric_blind_to_the_order_of_whole_lists_is_refused(tmp_path: Path, metric: str) -> None:
    with pytest.raises(
        UserError, match=f"{metric} is the same for every checkpoint: validation lists have 4 candidates"
    ):
        judge_scripted(stages(), tmp_path, metric=metric)
    assert judge_scripted(stages(), tmp_path, metric="hr@3")[0].users == 3
    assert judge_scripted(stages(), tmp_path, metric="ndcg@9")[0].users == 3
