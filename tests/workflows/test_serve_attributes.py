"""`msr serve` where templates say more of items and users than titles and summaries."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import msr_adapter as msr
from msr_adapter.config.loader import LoadedPipeline
from tests.support.recommending import ITEMS, TAKEN, load, order, own_run, rows, trained, write, write_pipeline
from tests.support.serving import Served, served
from tests.workflows.test_serve_process import everybody, modelled, written

SOURCE = "source: {kind: table, interactions: log.csv, items: items.csv}"
ATTRIBUTES = "items: {attributes: [brand, price]}\n  users: {path: users.csv, attributes: [age]}"
TEMPLATES = {
    "recommend": "{% if image %}<image>{% endif %}{{ user.age or 'any age' }}: {{ user_summary }} | {{ title }} by "
    "{{ item.brand or 'nobody' }}, {{ item.text }} {{ item.summary }} Yes or No?",
    "user_summary": "{{ previous }} {{ user.age or 'any age' }} {% for item in items %}{{ item.title }} at "
    "{{ item.price or 'no price' }} {{ item.text }}; {% endfor %}",
    "history": "{{ user.age or 'any age' }} {% for item in items %}{{ item.title }} of {{ item.brand or 'nobody' }}; "
    "{% endfor %}",
    "item_summary": "{% if image %}<image>{% endif %}{{ title }} {{ item.brand or 'nobody' }} {{ item.price or '?' }}",
}


def write_tables(folder: Path, *, gaps: bool = True) -> None:
    """Write items and users with attributes, and templates that say them; with ``gaps``, some are missing."""
    brands = ["" if gaps and place % 4 == 3 else f"brand {place % 3}" for place in range(len(ITEMS))]
    told = [(item, f"Title {item}", f"about {item}", brands[place], place + 0.5) for place, item in enumerate(ITEMS)]
    write(folder / "items.csv", ("item_id", "title", "description", "brand", "price"), told)
    users = [(user, 20 + place) for place, user in enumerate(TAKEN) if not (gaps and place % 3 == 2)]
    write(folder / "users.csv", ("user_id", "age"), users)
    (folder / "templates").mkdir(exist_ok=True)
    for name, text in TEMPLATES.items():
        (folder / "templates" / f"{name}.j2").write_text(text)


def write_attributed(folder: Path, **more: bool) -> None:
    write_pipeline(folder)
    write_tables(folder, **more)
    yaml = folder / "scripted.yaml"
    yaml.write_text(yaml.read_text().replace(SOURCE, f"{SOURCE}\n  {ATTRIBUTES}") + "templates: templates\n")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    write_attributed(folder)
    with trained(folder):
        yield folder


@pytest.mark.parametrize("mode", ["recurrent", "none"])
def test_attributes_are_said_as_msr_recommend_says_them(finished: Path, tmp_path: Path, mode: str) -> None:
    """Answers are those of the command's own requests: nothing is asked that it has not asked."""
    folder, sets = own_run(finished, tmp_path), (f"summarize.users.mode={mode}",)
    order(folder, sets, candidates="all", top=10)
    expected = rows(folder)
    with served(load(folder / "pipeline", folder, *sets), ("all",)) as server:
        for user in TAKEN:
            found = server.post("/v1/recommend", {"user_id": user})["items"]
            mine = [(row["item_id"], row["logit"]) for row in expected if row["user_id"] == user]
            assert [(row["item_id"], row["logit"]) for row in found] == mine
        assert by_model(server) == 0


def test_who_is_in_no_table_and_what_is_in_no_catalogue_has_no_attributes(finished: Path, tmp_path: Path) -> None:
    with served(load_own(finished, tmp_path), ("all",)) as server:
        asked = [{"history": ["a", "b"]}, {"user_id": "u1"}, {"summary": "Likes a."}]
        pairs = [{**one, **item} for one in asked for item in ({"item_id": "c"}, {"title": "Title c"})]
        found = server.post("/v1/score", {"pairs": pairs})["scores"]
        assert len({one["logit"] for one in found}) == len(pairs)  # each is another prompt
        summary = server.get("/v1/users/u1")["summary"]
        [again, stranger] = server.post("/v1/score", {"pairs": [
            {"user_id": "u1", "item_id": "c"}, {"summary": summary, "item_id": "c"},
        ]})["scores"]  # fmt: skip
        assert again["logit"] == found[2]["logit"] != stranger["logit"]
        reranked = server.post("/v1/rerank", {"query": {"user_id": "u1"}, "documents": ["c"]})["results"]
        assert reranked[0]["relevance_score"] == again["score"]


def test_a_template_that_needs_an_attribute_says_who_lacks_it(tmp_path: Path) -> None:
    write_attributed(tmp_path, gaps=False)
    question = tmp_path / "templates" / "recommend.j2"
    question.write_text("{% if image %}<image>{% endif %}{{ user.age }} {{ user_summary }} {{ title }} Yes or No?")
    (tmp_path / "pipeline").symlink_to(tmp_path)
    with trained(tmp_path), served(load(tmp_path, tmp_path), ("all",)) as server:
        assert server.post("/v1/recommend", {"user_id": "u1"})["items"]
        refused = server.post("/v1/recommend", {"history": ["a", "b"]}, 422)["error"]
        assert "user.age is missing here" in refused["message"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["summarize.users.mode=recurrent", "summarize.users.mode=none"])
def test_summaries_are_cut_with_attributes_in_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    write_tables(tmp_path)
    sets = (mode, "data.items.attributes=[brand, price]", f"templates={tmp_path / 'templates'}",
            f"data.users={{path: {tmp_path / 'users.csv'}, attributes: [age]}}", "train.cutoff_len=120")  # fmt: skip
    loaded = modelled(tmp_path, monkeypatch, *sets)
    write_tables(tmp_path)  # which has just been overwritten
    with served(loaded, ("all",)) as server:
        told = everybody(server)
        shown = {server.post("/v1/recommend", {"user_id": user})["summary"] for user in TAKEN}
        whole = {server.get(f"/v1/users/{user}")["summary"] for user in TAKEN}
    assert shown != whole or mode.endswith("recurrent")  # whose texts are short enough
    assert told == written(tmp_path, *sets)


def test_items_that_came_after_the_training_have_attributes(finished: Path, tmp_path: Path) -> None:
    """What is said of them is what would be said if they stood in the source's table."""
    folder = own_run(finished, tmp_path)
    new = write(tmp_path / "new.csv", ("item_id", "title", "description", "brand", "price"),
                [("n1", "New", "about it", "brand 9", 7), ("a", "Title a", "about a", "brand 0", 0.5)])  # fmt: skip
    order(folder, items=new, candidates="all", top=12)
    mine = {row["item_id"]: row["logit"] for row in rows(folder) if row["user_id"] == "u1"}
    write(tmp_path / "pairs.csv", ("user_id", "item_id"), [("u1", "n1"), ("u1", "j")])
    run = msr.open(folder / "run", quiet=True)
    assert run.score(tmp_path / "pairs.csv", items=new)["logit"].to_list() == [mine["n1"], mine["j"]]
    plain = pl.read_csv(new).drop("brand")
    [other, same] = run.score(tmp_path / "pairs.csv", items=plain)["logit"].to_list()
    assert (other != mine["n1"], same) == (True, mine["j"])  # the prompt says its brand
    with pytest.raises(msr.UserError, match=r"other words: a\b"):
        run.score(tmp_path / "pairs.csv", items=pl.read_csv(new).with_columns(price=pl.lit(3.0)))
    with pytest.raises(msr.UserError, match="price"):
        run.score(tmp_path / "pairs.csv", items=pl.read_csv(new).with_columns(price=pl.lit("dear")))


def by_model(server: Served) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('msr_pairs_total{source="model"}'))


def load_own(finished: Path, folder: Path) -> LoadedPipeline:
    own_run(finished, folder)
    return load(folder / "pipeline", folder)
