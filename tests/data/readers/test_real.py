"""The two real data sets, where they are at hand, through the data stage of their bundled pipelines.

They are looked for beside the checkout (`../shared/data`) or in the folder that MSR_SHARED_DATA names.
"""

import json
from pathlib import Path

import pytest

from msr_adapter.config.schema import OfficialAmazonSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.sources import read
from tests.support.end_to_end import msr
from tests.support.paths import shared_data


def shared(name: str) -> Path:
    folder = shared_data(name)
    if not folder.is_dir():
        pytest.skip(f"no {name} here: set MSR_SHARED_DATA to the folder that holds it")
    return folder


def test_the_official_amazon_files_by_their_known_counts() -> None:
    audit = Audit()
    corpus = read(OfficialAmazonSourceConfig(kind="mllm-msr-amazon", folder=shared("amazon-video-games")), 0, audit)
    log = corpus.interactions.collect()
    assert log["split"].value_counts(sort=True).rows() == [("train", 415_362), ("test", 104_284)]
    assert (log["user_id"].n_unique(), log["item_id"].n_unique()) == (62_793, 21_940)
    assert log["user_id"].str.starts_with("A").all()  # the original ids, not the numbers
    assert audit.counts == {
        "published_repeated": 4_545, "published_target_in_history": 298, "published_negatives": 5 * 62_793
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pipeline", "settings", "users"),
    [
        ("amazon-video-games", {"folder": ""}, {"train": 2_398, "validation": 0, "test": 602}),
        (
            "microlens-50k",
            {"pairs": "MicroLens-50k_pairs.tsv", "titles": "MicroLens-50k_titles.csv"},
            {"train": 2_100, "validation": 300, "test": 600},
        ),
    ],
)
def test_the_data_stage_of_the_bundled_pipeline(
    pipeline: str, settings: dict[str, str], users: dict[str, int], tmp_path: Path
) -> None:
    folder = shared(pipeline)
    sets = [part for key, file in settings.items() for part in ("--set", f"data.source.{key}={folder / file}")]
    no_model = ["--set", "summarize.items.mode=none", "--set", "summarize.users.mode=none"]
    done = msr("build-data", pipeline, *sets, *no_model, "--run-dir", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    audit = json.loads((tmp_path / "run" / "data" / "audit.json").read_text())
    splits = {name: counts["users"] for name, counts in audit["splits"].items()}
    assert splits == users
    assert audit["splits"]["test"]["candidates"] == 21 * users["test"]
    assert audit["counts"]["users_kept"] == 3_000
    assert (tmp_path / "run" / "dataset" / "dataset_info.json").is_file()
