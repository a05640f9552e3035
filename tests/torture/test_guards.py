"""Tests of hostile inputs fail without the guard that they are for: each guard is taken out, one at a time.

In a process of its own with bounded memory and time, since what a guard keeps out takes all of both.
"""

import resource
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.support.end_to_end import environment
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

_SECONDS = 40
_BYTES = 4 * 2**30
_WITH_TORCH = 12 * 2**30
"""Address space that importing it takes, and some."""
RUN = """\
import sys, pytest, contextlib, {module}
{module}.{name} = {nothing}
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", {test!r}]))
"""


class Guard(NamedTuple):
    """What stands between an input and the machine, and the test that shows it."""

    module: str
    name: str
    nothing: str
    """What does nothing in its place: Python."""
    test: str
    limit: int = _BYTES


GUARDS = (
    Guard("msr_adapter.config.yaml_tree", "_MOST_VALUES", "10**18",
          "security/test_yaml.py::test_an_alias_bomb_is_refused"),
    Guard("msr_adapter.config.yaml_tree", "_MOST_VALUES", "10**18",
          "security/test_yaml.py::test_a_setting_may_be_no_bomb_either"),
    Guard("msr_adapter.config.yaml_tree", "DEEPEST", "10**9", "security/test_yaml.py::test_deep_nesting_is_refused"),
    Guard("msr_adapter.config.loader", "LARGEST", "10**18",
          "security/test_yaml.py::test_a_file_that_is_no_pipeline_by_its_size_is_not_read"),
    Guard("msr_adapter.config.loader", "TreeReader.read", "msr_adapter.config.loader.TreeReader._read",
          "security/test_yaml.py::test_a_diamond_of_parents_reads_each_file_once"),
    Guard("msr_adapter.config.loader", "_LONGEST_CHAIN", "10**9",
          "security/test_yaml.py::test_a_long_chain_of_parents_is_refused"),
    Guard("msr_adapter.config.yaml_tree", "read_scalar", "lambda tag, text: text",
          "config/test_messages.py::test_one_bad_line"),
    Guard("msr_adapter.config.yaml_tree", "read_scalar", "lambda tag, text: int(text) if tag.endswith('int') else text",
          "config/test_messages.py::test_what_nothing_can_hold_is_refused"),
    Guard("msr_adapter.backends.http", "LARGEST", "10**15",
          "security/test_server.py::test_a_body_that_is_too_large_is_a_failure_and_takes_no_memory"),
    Guard("msr_adapter.data.readers.compressed", "_measure", "lambda path, enough: (0, 0)",
          "data/test_hostile_tables.py::test_a_gzip_bomb_is_an_error_for_every_command"),
    Guard("msr_adapter.llamafactory.fitting_weights", "sized_like", "lambda folder: contextlib.nullcontext()",
          "llamafactory/test_claimed_sizes.py::test_a_config_of_a_far_larger_model_is_refused_before_it_takes_memory",
          _WITH_TORCH),
    Guard("msr_adapter.llamafactory.model_files", "size_fault", "lambda folder: ''",
          "llamafactory/test_claimed_sizes.py::"
          "test_layers_that_nobody_can_count_through_are_refused_by_check_and_before_loading", _WITH_TORCH),
)  # fmt: skip


def passes(code: str, limit: int) -> bool:
    """Say whether a test passes in a process of its own, within time and memory."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment(),
            timeout=_SECONDS, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 2 and more: pytest did not come to the test
    return done.returncode == 0


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: f"{guard.name}-{guard.test.split('::')[1]}")
def test_without_its_guard_a_test_fails(guard: Guard) -> None:
    code = RUN.format(module=guard.module, name=guard.name, nothing=guard.nothing, test=f"tests/{guard.test}")
    assert not passes(code, guard.limit)
