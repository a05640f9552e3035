"""What is said, before a run, of templates and several images."""

from pathlib import Path

import pytest

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.pipeline.image_checks import check_images, image_notes

OLD = "{% if image %}<image>\n{% endif %}{{ title }} {{ user_summary }}"


def loaded(folder: Path, *settings: str, recommend: str = "") -> LoadedPipeline:
    (folder / "own").mkdir(exist_ok=True)
    if recommend:
        (folder / "own/recommend.j2").write_text(recommend)
    sets = (f"templates={folder / 'own'}", "train.prompt=recommend", *settings)
    return load_pipeline("microlens-50k", [*sets, f"run_dir={folder / 'run'}"])


def test_bundled_templates_show_all(tmp_path: Path) -> None:
    pipeline = loaded(tmp_path, "data.images.max=3", "train.history_images=2")
    assert (check_images(pipeline), image_notes(pipeline)) == ([], [])


def test_a_template_that_shows_one_of_several_is_told(tmp_path: Path) -> None:
    assert image_notes(loaded(tmp_path, recommend=OLD)) == []
    [said] = image_notes(loaded(tmp_path, "data.images.max=3", recommend=OLD))
    assert said.startswith("recommend.j2 shows 1 of up to 3 images of an item (data.images.max): write {% for image")
    assert check_images(loaded(tmp_path, "data.images.max=3", recommend=OLD)) == []


@pytest.mark.parametrize(
    ("settings", "template", "why"),
    [
        (["train.history_images=2"], OLD, "the template recommend.j2 does not show the latest items"),
        (["train.history_images=2", "train.images=false"], "", "shown images are switched off"),
        (
            ["train.history_images=2"],
            "{{ recent|length }}{{ images|join }}{{ title }}{{ user_summary }}",
            "placeholder",
        ),
        (["data.images.max=3"], "{% if images[:2] %}{{ images|join }}{{ images|join }}{% endif %}", "3 images"),
    ],
)
def test_what_cannot_be_shown_is_a_problem(tmp_path: Path, settings: list[str], template: str, why: str) -> None:
    problems = check_images(loaded(tmp_path, *settings, recommend=template))
    assert any(why in problem.found for problem in problems), problems
