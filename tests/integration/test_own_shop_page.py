"""The page `docs/own_shop.md`, done by its letter: its commands, one after the other, on a shop of 300 items."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.paths import ROOT

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 200), "yellow": (220, 200, 40)}
KINDS = ("mug", "lamp", "chair", "scarf", "bowl")


def write_shop(folder: Path, *, items: int = 300, users: int = 200) -> None:
    """Write `log.csv`, `items.csv` and `images/` of a shop whose users each like one colour, and `since.csv`."""
    random = np.random.default_rng(3)
    names = list(COLOURS)
    colours = random.integers(len(names), size=items)
    (folder / "images").mkdir()
    with (folder / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title", "category"])
        for item, colour in enumerate(colours):
            kind = KINDS[int(random.integers(len(KINDS)))]
            rows.writerow([f"sku-{item:03}", f"{names[colour].title()} {kind} no. {item}", kind])
            picture = Image.new("RGB", (96, 96), "white")
            ImageDraw.Draw(picture).ellipse((15, 15, 80, 80), fill=COLOURS[names[colour]])
            picture.save(folder / "images" / f"sku-{item:03}.jpg")
    with (folder / "log.csv").open("w", newline="") as log, (folder / "since.csv").open("w", newline="") as since:
        before, after = csv.writer(log), csv.writer(since)
        before.writerow(["user_id", "item_id", "timestamp"])
        after.writerow(["user_id", "item_id", "timestamp"])
        for user in range(users):
            liked = np.flatnonzero(colours == random.integers(len(names)))
            chosen = random.permutation(
                np.unique(np.r_[random.choice(liked, 8, replace=False), random.integers(items, size=4)])
            )
            times = 1_700_000_000 + np.sort(random.integers(10**6, size=len(chosen)))
            for place, (item, time) in enumerate(zip(chosen, times, strict=True)):
                (after if place == len(chosen) - 1 and user < 5 else before).writerow(
                    [f"u{user}", f"sku-{item:03}", time]
                )


@pytest.mark.slow
def test_the_commands_of_the_page_run_one_after_the_other(tmp_path: Path) -> None:
    write_shop(tmp_path)
    page = (ROOT / "docs" / "own_shop.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S) for line in block.splitlines()]
    assert len(commands) >= 5
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def do(command: str) -> None:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    for command in commands:
        do(command)
    # The model that knows the world, of which another toy stands in here, and what compares it.
    [real] = re.findall(r"^```yaml\n# real.yaml\n(.*?)^```", page, re.M | re.S)
    toy = real.replace("Qwen/Qwen2.5-VL-3B-Instruct", "tiny").replace("max_steps: null, epochs: 3", "max_steps: 4")
    assert "max_steps: 4" in toy
    (tmp_path / "real.yaml").write_text(toy)
    do("msr run real.yaml")
    # The model that sees no images, of which the toy stands in too.
    [small] = re.findall(r"^```yaml\n# small.yaml\n(.*?)^```", page, re.M | re.S)
    assert "models/smollm2" in small
    (tmp_path / "small.yaml").write_text(small.replace("models/smollm2", "tiny"))
    do("msr check small.yaml")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, re.M | re.S)
    compared = [line for kind, block in blocks if not kind for line in block.splitlines() if line.startswith("msr ")]
    assert len(compared) >= 2
    for command in compared:
        do(command)
    assert (tmp_path / "runs" / "my" / "evaluate" / "report.html").is_file()
    assert (tmp_path / "runs" / "my" / "data" / "audit.json").is_file()
    with (tmp_path / "recs.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert {row["user_id"] for row in listed} == {f"u{user}" for user in range(200)}
    assert {row["rank"] for row in listed} == {"1", "2", "3", "4", "5"}
    assert (tmp_path / "after.csv").is_file()
