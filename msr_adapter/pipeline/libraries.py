"""Whether the libraries of the fitted baselines and of the workers are installed."""

from collections.abc import Sequence
from importlib.util import find_spec

from msr_adapter.config.models import Execution
from msr_adapter.errors import Problem
from msr_adapter.machine.optional import BASELINES, RAY, RECTOOLS, is_there

_NEEDED = {"item-knn": ("implicit",), "mf": ("implicit",), "sasrec": ("implicit", "pytorch_lightning", "rectools")}


def check_libraries(baselines: Sequence[str], where: str) -> list[Problem]:
    """Return one problem for all the baselines whose libraries are absent; nothing is imported."""
    absent = {name: [each for each in _NEEDED.get(name, ()) if find_spec(each) is None] for name in baselines}
    short = sorted(name for name, libraries in absent.items() if libraries)
    if not short:
        return []
    libraries = sorted({each for name in short for each in absent[name]})
    commands = [BASELINES] if set(libraries) - {"rectools"} else []
    commands += [RECTOOLS] if "rectools" in libraries else []
    found = f"{', '.join(short)} cannot be fitted: {', '.join(libraries)} not installed"
    step = f"Run `{' && '.join(commands)}`, or leave them out of evaluate.baselines"
    return [Problem(where, "evaluate.baselines", found, next_step=step)]


def check_engine(execution: Execution, where: str) -> list[Problem]:
    """Return a problem if the workers are Ray's and Ray is absent."""
    if execution.engine != "ray" or is_there("ray"):
        return []
    step = f"Run `{RAY}`, or set execution.engine=local"
    return [Problem(where, "execution.engine", "Ray is not installed", next_step=step)]
