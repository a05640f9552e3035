"""A finished run, read back: its metrics and what each of its models ranks the candidates by."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.metrics_file import MetricsFile
from msr_adapter.evaluate.model_metrics import Judged, judge_trainings
from msr_adapter.filesystem import parse_json, read_bytes, require_file
from msr_adapter.integrity import read_manifest, require_unaltered
from msr_adapter.run_folder_mark import MANIFEST, refuse_older
from msr_adapter.schema import CANDIDATES, candidates_digest

_AGAIN = (
    "Run `msr evaluate` again in this run folder, with `--force evaluate` if it says that it is up to date; trained "
    "weights and scores are kept"
)
_STAGE = " stage"
"""How a fingerprint names what came of a stage."""


class _Interval(BaseModel):
    mean: float
    low: float
    high: float


class _Model(BaseModel):
    metrics: dict[str, _Interval]


class _Candidates(BaseModel):
    rows: int
    targets: int
    digest: str


class _Sampling(BaseModel):
    sampled: bool
    negatives: float
    distribution: str
    items: int
    caution: str


class _Level(BaseModel):
    level: float


class _Settings(BaseModel):
    confidence: _Level


class _Shape(BaseModel):
    """What the commands that read a finished run need of `metrics.json`."""

    pipeline: str
    users: int
    seed: int = Field(ge=0)
    primary: str
    protocol: _Settings
    protocol_digest: str
    candidates: _Candidates
    sampling: _Sampling
    models: dict[str, _Model] = Field(min_length=1)
    chance: dict[str, float]


@dataclass(frozen=True)
class FinishedRun:
    """The evaluate folder of one run."""

    folder: Path
    """The run folder."""
    metrics: MetricsFile
    """`metrics.json`."""
    table: pa.Table
    """`candidate_scores.parquet`: CANDIDATES and ``score:<model>`` of every model (n rows)."""

    @property
    def models(self) -> list[str]:
        """Every model that was judged."""
        return list(self.metrics["models"])

    def queries(self) -> pl.DataFrame:
        """Return the query of every user, which is an example id as text, and the user's own id: query, user_id."""
        path = self.folder / "evaluate" / "per_user.parquet"
        try:
            rows = pl.read_parquet(path, columns=["example_id", "user_id"], glob=False)
            users = rows.unique().sort("example_id")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise _problem(path, f"cannot be read ({error})") from error
        return users.select(query=pl.col("example_id").cast(pl.String), user_id=pl.col("user_id"))

    @property
    def held_out(self) -> HeldOut:
        """The candidates; a user is called by the example id."""
        ids = self.table["example_id"].to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
        offsets = np.append(starts, len(ids)).astype(np.int64)
        users = pa.array([str(example) for example in ids[starts].tolist()])
        rows = self.table.select(CANDIDATES.names)
        return HeldOut(ids[starts], users, offsets, rows, self.metrics["candidates"]["digest"])

    def scores(self, model: str) -> Floats:
        """Return what ``model`` ranks the candidates by (n,). Raises UserError on a model that was not judged."""
        if model not in self.models:
            known = f"this run has {', '.join(self.models)}"
            raise UserError(
                Problem(str(self.folder), "model", f"no model `{model}`", known, did_you_mean(model, self.models))
            )
        return np.asarray(self.table[f"score:{model}"].to_numpy(), np.float64)

    def judge(self, model: str, protocol: ProtocolConfig, held_out: HeldOut) -> Judged:
        """Judge ``model`` on the candidates; a model that was trained several times over all of its trainings."""
        repeats = len(self.metrics.get("trainings", {}).get("seeds", [0])) if model == "trained" else 1
        more = [np.asarray(self.table[f"training:{number}"].to_numpy(), np.float64) for number in range(2, repeats + 1)]
        return judge_trainings(protocol, held_out, [self.scores(model), *more])

    @property
    def protocol(self) -> ProtocolConfig:
        """The protocol. Raises UserError when this version of msr does not know its settings."""
        try:
            return ProtocolConfig.model_validate(self.metrics["protocol"])
        except ValidationError as error:
            raise _older(self.folder, f"protocol.{_said(error)}") from error


def read_finished(folder: Path) -> FinishedRun:
    """Read the run in ``folder``; raises UserError without a finished evaluation of this version, or a damaged one."""
    refuse_older(folder, ("evaluate",))
    where = folder / "evaluate"
    if (
        where.is_dir()
        and not read_manifest(where)
        and any((folder / name / MANIFEST).exists() for name in ("evaluate", "data"))
    ):
        raise _problem(where / MANIFEST, "gone, damaged or changed by hand: nothing here can be believed")
    require_unaltered([where])
    path = where / "metrics.json"
    try:
        metrics = parse_json(read_bytes(path))
    except FileNotFoundError:
        raise _problem(folder, "no finished evaluation in this folder", "Run `msr evaluate` first") from None
    except (OSError, ValueError) as error:
        raise _problem(path, f"cannot be read ({error})") from error
    if not isinstance(metrics, dict):
        raise _problem(path, "no object")
    if missing := [key for key in _Shape.model_fields if key not in metrics]:
        raise _older(path, f"it has no {', '.join(missing)}")
    try:
        _Shape.model_validate(metrics, strict=True)  # else pydantic takes the text "0.5" for a number
    except ValidationError as error:
        raise _problem(path, _said(error)) from error
    for name, model in metrics["models"].items():
        if missing := [metric for metric in metrics["chance"] if metric not in model["metrics"]]:
            raise _problem(path, f"models.{name} has no {', '.join(missing)}")
    whole = cast("MetricsFile", metrics)
    return FinishedRun(folder, whole, _read_scores(where / "candidate_scores.parquet", whole))


def outdated(folder: Path) -> list[str]:
    """Return the stages of a run that were made again since its evaluation."""
    judged = read_manifest(folder / "evaluate").get("fingerprint", {})
    now = {
        key: read_manifest(folder / key.removesuffix(_STAGE)).get("output") for key in judged if key.endswith(_STAGE)
    }
    return [key.removesuffix(_STAGE) for key, output in now.items() if output and output != judged[key]]


def _said(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])


def _read_scores(path: Path, metrics: MetricsFile) -> pa.Table:
    try:
        require_file(path)
        table = pq.read_table(path)
    except FileNotFoundError:
        raise _older(path, "it is missing") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise _problem(path, f"cannot be read ({error})") from error
    repeats = len(metrics.get("trainings", {}).get("seeds", [0]))
    wanted = [*CANDIDATES.names, *(f"score:{model}" for model in metrics["models"])]
    wanted += [f"training:{number}" for number in range(2, repeats + 1)]
    if missing := [name for name in wanted if name not in table.column_names]:
        raise _problem(path, f"no column {', '.join(missing)}")
    if candidates_digest(lambda name: table[name].chunks) != metrics["candidates"]["digest"]:
        raise _problem(path, "these are not the candidates of `metrics.json`")
    return table


def _problem(path: Path, found: str, next_step: str = _AGAIN) -> UserError:
    return UserError(Problem(str(path), "", found, "", next_step))


def _older(path: Path, found: str) -> UserError:
    return _problem(path, f"judged by another version of msr: {found}")
