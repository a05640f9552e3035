"""A run as an object: what its stages made, as frames, and its model for recommendations and scores."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import polars as pl

from msr_adapter import schema
from msr_adapter.api.frames import Ids, Rows, as_ids, as_table, frame, read_stage, reporter
from msr_adapter.config.loader import LoadedPipeline, load_pipeline, load_resolved
from msr_adapter.config.named_runs import run_folder
from msr_adapter.errors import Problem, UserError
from msr_adapter.filesystem import DamagedFileError, guarded
from msr_adapter.integrity import read_sealed
from msr_adapter.run_folder_mark import remembered


class RecommendOptions(TypedDict, total=False):
    """More of what `Run.recommend` takes, each as the option of `msr recommend` of that name."""

    include_seen: bool
    unknown_users: Any
    interactions: Rows | str | Path
    items: Rows | str | Path
    train: bool


class ScoreOptions(TypedDict, total=False):
    """More of what `Run.score` takes, each as the option of `msr score` of that name."""

    columns: dict[str, str]
    unknown: Any
    histories: Any
    items: Rows | str | Path
    train: bool


def open(run: str | Path, *, quiet: bool = False) -> "Run":
    """Open a run: its folder, its name in `runs/`, or its pipeline, as `msr results` takes it.

    ``quiet`` leaves progress out of what it does later. Raises `UserError` where there is no such run.
    """
    with guarded():
        folder = run_folder(str(run))
        made_with = folder / "pipeline.json"
        settings = {key: value for key, value in read_sealed(made_with).items() if key != "run_dir"}
        if settings:
            loaded = load_resolved(settings, made_with, folder)
            known = [path for what, path in remembered(folder).items() if what.startswith("the pipeline's file")]
            return Run(replace(loaded, files=tuple(known)), quiet=quiet)
        if folder.is_dir() or not Path(run).is_file():
            step = "Give the folder of a run, such as runs/NAME, or run the pipeline: msr.load(...).run()"
            raise UserError(Problem(str(folder), "run", "no run that says what it was made with", "", step))
        return Run(load_pipeline(str(run)), quiet=quiet)


class Run:
    """A run folder. Its tables are read whenever they are asked for; `UserError` where a stage has not made one."""

    def __init__(self, loaded: LoadedPipeline, *, quiet: bool = False) -> None:
        self._loaded, self._quiet = loaded, quiet

    def __repr__(self) -> str:
        return f"<msr run {self._loaded.pipeline.name} in {self.folder}>"

    @property
    def name(self) -> str:
        """What its pipeline is called."""
        return self._loaded.pipeline.name

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._loaded.run_dir

    @property
    def config(self) -> dict[str, Any]:
        """Every setting with its value, defaults included."""
        return self._loaded.resolved

    @property
    def report(self) -> Path:
        """The page that the run ends with."""
        return self.folder / "evaluate" / "report.html"

    @property
    def metrics(self) -> pl.DataFrame:
        """model, metric, mean, and the ends of its interval over users: low, high."""
        from msr_adapter.evaluate.results import read_finished

        with guarded():
            judged = read_finished(self.folder).metrics["models"]
        rows = [
            {"model": model, "metric": metric, "mean": value["mean"], "low": value["low"], "high": value["high"]}
            for model, found in judged.items()
            for metric, value in found["metrics"].items()
        ]
        return pl.DataFrame(rows)

    @property
    def per_user(self) -> pl.DataFrame:
        """A row per test user and model: example_id, user_id, model, candidates, rank, and every metric."""
        from msr_adapter.evaluate.results import read_finished

        with guarded():
            read_finished(self.folder)  # refuses what was changed by hand
            return pl.read_parquet(self.folder / "evaluate" / "per_user.parquet", glob=False)

    @property
    def scores(self) -> pl.DataFrame:
        """The trained model's scores of the test candidates: example_id, user_id, item_id, label, score, logit, ...

        Of a question that a text answers: ratio, given, alone and tokens in place of score and logit.
        """
        with guarded():
            try:
                scores = read_stage(self.folder, "score", "scores.parquet", schema.SCORES)
            except DamagedFileError:  # or of a question that a text answers
                scores = read_stage(self.folder, "score", "scores.parquet", schema.RATIOS)
        pairs = self.candidates.filter(pl.col("split") == "test")
        return pairs.drop("split").join(scores, on=["example_id", "item_id"], how="inner", maintain_order="left")

    @property
    def candidates(self) -> pl.DataFrame:
        """The candidate lists of all splits: example_id, split, user_id, item_id, label (1 = positive)."""
        with guarded():
            lists = read_stage(self.folder, "data", "candidates.parquet", schema.CANDIDATES)
        users = self.examples.select("example_id", "split", "user_id")
        return lists.join(users, on="example_id", how="left", maintain_order="left").select(
            "example_id", "split", "user_id", "item_id", "label"
        )

    @property
    def examples(self) -> pl.DataFrame:
        """A row per user and target: example_id, split, user_id, history (oldest first), timestamp of the target."""
        with guarded():
            return read_stage(self.folder, "data", "examples.parquet", schema.EXAMPLES)

    @property
    def interactions(self) -> pl.DataFrame:
        """The kept log: user_id, item_id, timestamp, and whether training may know of it."""
        with guarded():
            return read_stage(self.folder, "data", "interactions.parquet", schema.INTERACTIONS)

    @property
    def items(self) -> pl.DataFrame:
        """The catalogue: item_id, title, image and more_images (paths, null = none), popularity, text, category.

        Beside them the summary, once it is there.
        """
        with guarded():
            items = read_stage(self.folder, "data", "items.parquet", schema.ITEMS).drop("image_digest")
            root = pl.lit(f"{self.folder / 'data'}/")
            further = pl.col("more_images").list.eval(root + pl.element().struct.field("path"))
            items = items.with_columns((root + pl.col("image")).alias("image"), further)
            if not (path := self.folder / "items" / "items.parquet").exists():
                return items
            summaries = frame(schema.read_table(path, schema.ITEM_SUMMARIES))
        return items.join(summaries, on="item_id", how="left", maintain_order="left")

    @property
    def summaries(self) -> pl.DataFrame:
        """The user summaries that prompts show: example_id, split, user_id, summary."""
        from msr_adapter.pipeline.stage_context import is_truncating

        stage = "truncate" if is_truncating(self._loaded.pipeline) else "users"
        with guarded():
            texts = read_stage(self.folder, stage, "users.parquet", schema.USER_SUMMARIES)
        users = self.examples.select("example_id", "split", "user_id")
        return users.join(texts, on="example_id", how="inner", maintain_order="left")

    def recommend(
        self, users: Ids | str | Path | None = None, *, candidates: Rows | str | Path = "popular:200", top: int = 10,
        **options: Unpack[RecommendOptions],
    ) -> pl.DataFrame:  # fmt: skip
        """Return ranked lists, a row per user and place: user_id, rank, item_id, title, score, logit, ...

        ``users`` are ids (or a file of them), all unless given; ``candidates`` is where items come from, as for
        `msr recommend`, or a table of items or of users and items. ``interactions`` may be a table of what came later,
        ``items`` one of items that came after the training.
        """
        from msr_adapter.workflows.recommend import RecommendRequest
        from msr_adapter.workflows.recommend.workflow import recommend

        with tempfile.TemporaryDirectory(prefix="msr-") as name, guarded():
            work = Path(name)
            who = None if users is None else as_ids(users, "user_id", work / "users.parquet")
            later, new = options.get("interactions"), options.get("items")
            wanted = RecommendRequest(
                who, str(as_table(candidates, work / "candidates.parquet")), top, work / "lists.parquet",
                options.get("include_seen"), options.get("unknown_users", "error"),
                None if later is None else as_table(later, work / "later.parquet"),
                None if new is None else as_table(new, work / "items.parquet"),
            )  # fmt: skip
            recommend(self._loaded, wanted, reporter(quiet=self._quiet), train=options.get("train", False))
            return frame(schema.read_table(wanted.out, schema.RECOMMENDATIONS))

    def score(self, pairs: Rows | str | Path, **options: Unpack[ScoreOptions]) -> pl.DataFrame:
        """Return a table of users and items (or titles) with `score` and `logit` beside every row, in its order.

        ``pairs`` is a frame, a mapping of columns or a file, as for `msr score`; ``items`` may be a table of items that
        came after the training.
        """
        from msr_adapter.workflows.score_pairs import PairsRequest
        from msr_adapter.workflows.score_pairs.workflow import score_table

        with tempfile.TemporaryDirectory(prefix="msr-") as name, guarded():
            table, new = as_table(pairs, Path(name) / "pairs.parquet"), options.get("items")
            wanted = PairsRequest(
                table, Path(name) / "scored.parquet", options.get("columns", {}), options.get("unknown", "error"),
                options.get("histories", "all"),
                items=None if new is None else as_table(new, Path(name) / "items.parquet"),
            )  # fmt: skip
            score_table(self._loaded, wanted, reporter(quiet=self._quiet), train=options.get("train", False))
            return pl.read_parquet(wanted.out, glob=False)
