"""A pipeline as an object: the YAML with settings, to be looked at, checked and run."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msr_adapter.api.frames import reporter
from msr_adapter.api.runs import Run
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import Problem, did_you_mean, raise_if_any
from msr_adapter.filesystem import guarded


def load(
    pipeline: str | Path, *, run_dir: str | Path | None = None, quiet: bool = False, **settings: Any
) -> "Pipeline":
    """Load a pipeline: a YAML file or a bundled name, as `msr run` takes it.

    Settings are keys of the YAML with two underscores for each dot, and win over the file:
    ``msr.load("my.yaml", train__epochs=2)`` is ``msr run my.yaml --set train.epochs=2``. ``run_dir`` is where the run
    is kept, ``runs/<name>`` unless given; ``quiet`` leaves progress out. Raises `UserError` with every problem.
    """
    sets = [f"{key.replace('__', '.')}={_yaml(value)}" for key, value in settings.items()]
    with guarded():
        loaded = load_pipeline(str(pipeline), sets, None if run_dir is None else Path(run_dir))
    return Pipeline(loaded, quiet=quiet)


class Pipeline:
    """A pipeline that was loaded; nothing has run yet."""

    def __init__(self, loaded: LoadedPipeline, *, quiet: bool = False) -> None:
        self._loaded, self._quiet = loaded, quiet

    def __repr__(self) -> str:
        return f"<msr pipeline {self.name} of {self._loaded.origin.name}, run in {self.run_dir}>"

    @property
    def name(self) -> str:
        """What the pipeline is called."""
        return self._loaded.pipeline.name

    @property
    def run_dir(self) -> Path:
        """Where its run is kept."""
        return self._loaded.run_dir

    @property
    def config(self) -> Mapping[str, Any]:
        """Every setting with its value, defaults included, as in `docs/configuration.md`."""
        return self._loaded.resolved

    def check(self) -> list[Problem]:
        """Return every problem that can be known before a model is loaded; none: it can be run."""
        from msr_adapter.pipeline import check

        with guarded():
            return check(self._loaded)

    def plan(self) -> dict[str, str]:
        """Return stage -> ``up to date``, or why `run` would make it."""
        from msr_adapter.pipeline import plan

        with guarded():
            return plan(self._loaded)

    def run(self, *targets: str, force: Iterable[str] = ()) -> Run:
        """Bring the run up to date, stage by stage, and return it.

        ``targets`` are stages to stop at, unless given all of them; ``force`` names stages to redo. Raises `UserError`
        for a wrong pipeline or input, `StageError` when a stage fails; what is finished stays, and a second call goes
        on from there.
        """
        from msr_adapter.pipeline import WHOLE, run

        force = tuple(force)
        _require_stages(targets=targets, force=force)
        with guarded():
            run(self._loaded, targets or WHOLE, force=force, reporter=reporter(quiet=self._quiet))
        return self.open()

    def open(self) -> Run:
        """Return the run as it is, whatever of it is finished."""
        return Run(self._loaded, quiet=self._quiet)


def _require_stages(**named: Iterable[str]) -> None:
    from msr_adapter.pipeline import STAGE_NAMES

    raise_if_any(
        Problem("", field, f"the text {name!r}", f"one of {', '.join(STAGE_NAMES)}", did_you_mean(name, STAGE_NAMES))
        for field, names in named.items()
        for name in names
        if name not in STAGE_NAMES
    )


def _yaml(value: object) -> str:
    """Return a value as the YAML of a setting; JSON is YAML."""
    return json.dumps(value, default=str, ensure_ascii=False)
