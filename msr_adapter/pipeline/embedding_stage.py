"""Who embeds in a run, and the stage that embeds the catalogue and the test users for `evaluate.full`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.doctor.libraries import BASELINES, EMBEDDING
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.model_weights import trained_weights
from msr_adapter.pipeline.peak_memory import release
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.retrieval import members, needs_content

if TYPE_CHECKING:
    from msr_adapter.embedding import Embedder


@contextmanager
def open_embedder(c: Context) -> Iterator["Embedder"]:
    """Yield what embeds as `embedding` says, through the cache; its model is let go of afterwards."""
    from msr_adapter.embedding import Embedder
    from msr_adapter.generation import Backend

    p, config = c.pipeline, c.pipeline.embedding
    backend: Backend
    if config.own:
        from msr_adapter.embedding.hidden_states import HiddenStatesBackend

        backend = HiddenStatesBackend(p.train.model, trained_weights(c.dirs.train))
        name: str = backend.label
        reads_images: Callable[[], bool] = partial(bool, p.train.images)
    else:
        from msr_adapter.embedding.sentence_model import SentenceBackend

        backend = made = SentenceBackend(config)
        name, reads_images = config.model, partial(getattr, made, "reads_images")
        del made
    try:
        with c.cache() as cache:
            yield Embedder(backend, cache, c.reporter, name, reads_images)
    finally:
        del backend
        release()


def run_embed(c: Context) -> dict[str, Any]:
    """Embed the catalogue and the summaries of the test users."""
    from msr_adapter.embedding import Catalogue, EmbeddedRows, embed_catalogue, user_text, write_embeddings
    from msr_adapter.evaluate.table_retrieval import ITEMS, USERS
    from msr_adapter.summarize import read_summaries

    config, data = c.pipeline.embedding, c.dirs.data
    table = schema.read_listed(data / "items.parquet")
    asked = schema.read_table(data / "examples.parquet", schema.EXAMPLES, ["example_id", "split", "history"])
    asked = asked.filter(pc.equal(asked["split"], "test"))
    if config.users == "history":  # a summary stands in where there is none
        asked = asked.filter(pc.equal(pc.list_value_length(asked["history"]), 0))
    test = set(asked["example_id"].to_pylist())
    summaries = schema.read_table(c.dirs.users / "users.parquet", schema.USER_SUMMARIES)
    rows = zip(summaries["example_id"].to_pylist(), summaries["summary"].to_pylist(), strict=True)
    told = {str(example): user_text(config, text) for example, text in rows if example in test}
    with open_embedder(c) as embedder:
        items = embed_catalogue(config, embedder, Catalogue(table, read_summaries(c.dirs.items), data))
        embedder.say("items")
        vectors = embedder.embed("user summaries", list(told.values()))
        embedder.say("user summaries")
        users = EmbeddedRows("user", list(told), ["summary"] * len(told), vectors)
        model = (embedder.label, embedder.digest)
    write_embeddings(c.out / ITEMS, [items], model)
    write_embeddings(c.out / USERS, [users], model)
    return {
        "items": items.present,
        "users": users.present,
        "model": model[0],
        "model_digest": model[1],
        "dimension": int(items.vectors.shape[1]),
    }


def check_embedding(loaded: LoadedPipeline) -> list[Problem]:
    """Return why nothing can be embedded as `embedding` says; nothing is imported or loaded."""
    config = loaded.pipeline.embedding
    where = loaded.where("embedding.model")
    if config.own:
        if loaded.pipeline.evaluate.scorer is None:
            return []
        found = "own: a server scores, so that no model of the run is here"
        return [Problem(where, "embedding.model", found, "", "Name a sentence-transformers model")]
    if find_spec("sentence_transformers") is None:
        found = f"{config.model} needs sentence-transformers, which is not installed"
        return [Problem(where, "embedding.model", found, "", f"Run `{EMBEDDING}`, or set embedding.model=own")]
    from msr_adapter.embedding.model_folder import folder_fault

    fault = folder_fault(config.model)
    allowed = "own, a folder that sentence-transformers saved, or a hub id"
    return [Problem(where, "embedding.model", f"{config.model}: {fault}", allowed)] if fault else []


def check_retriever(loaded: LoadedPipeline, name: str, where: tuple[str, str]) -> list[Problem]:
    """Return what the retriever ``name`` needs and lacks; ``where`` names the file and the setting that ask for it."""
    pipeline = loaded.pipeline
    problems = []
    rows = members(name, pipeline.fusion)
    if absent := sorted({module for row in rows for module in row.libraries if find_spec(module) is None}):
        found = f"{name} needs {', '.join(absent)}, which is not installed"
        step = f"Run `{BASELINES}`, or " + (
            "leave item-knn out of fusion.retrievers" if name == "fused" else "take another"
        )
        problems.append(Problem(*where, found, "", step))
    if needs_content(name, pipeline.fusion):
        problems += check_embedding(loaded)
        if pipeline.embedding.search == "faiss" and find_spec("faiss") is None:
            found = "faiss is not installed"
            step = f"Run `{EMBEDDING}`, or set embedding.search=exact"
            problems.append(Problem(loaded.where("embedding.search"), "embedding.search", found, "", step))
    return problems
