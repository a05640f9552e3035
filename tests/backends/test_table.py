"""One row for each backend, and nothing that a pipeline may name beside them."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from msr_adapter.backends import make_backend, make_server_scorer
from msr_adapter.backends.vllm import installed
from msr_adapter.config.schema import BACKENDS, BackendRow, ModelConfig
from msr_adapter.llamafactory.model_weights import BASE
from tests.support.tiny_run import model_ref

SERVER: dict[str, Any] = {"url": "http://127.0.0.1:9/v1"}


def configured(row: BackendRow) -> ModelConfig:
    return ModelConfig(path="tiny", backend=row.name, server=SERVER if row.remote else None)


def test_the_names_that_the_config_allows_are_the_rows() -> None:
    allowed = get_args(ModelConfig.model_fields["backend"].annotation)
    assert allowed == tuple(row.name for row in BACKENDS)
    assert len(set(allowed)) == len(allowed)
    with pytest.raises(ValidationError):
        ModelConfig(path="tiny", backend="another")


@pytest.mark.parametrize("row", BACKENDS, ids=lambda row: row.name)
def test_every_row_makes_its_backend_without_loading_a_model(row: BackendRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "installed_version", lambda: "0.23.0")
    model = configured(row)
    backend = make_backend(model)
    assert backend.identity == make_backend(model).identity
    assert backend.label
    assert backend.stats is None or backend.stats.rows == 0
    assert model.backend_row is row


@pytest.mark.parametrize("row", BACKENDS, ids=lambda row: row.name)
def test_what_can_score_for_a_trained_model_is_said_by_its_row(row: BackendRow) -> None:
    if row.make_scorer is None:
        with pytest.raises(ValueError, match="cannot score for another model"):
            make_server_scorer(configured(row), model_ref(), BASE)
    else:
        assert make_server_scorer(configured(row), model_ref(), BASE).identity


def test_only_what_is_loaded_here_has_an_adapter_or_a_quantization() -> None:
    for row in BACKENDS:
        if not row.local:
            with pytest.raises(ValidationError, match="need backend huggingface"):
                ModelConfig(path="tiny", backend=row.name, server=SERVER if row.remote else None, quantization=4)
