"""What is read from LLaMA-Factory's source is what its import says."""

import dataclasses
import subprocess
import sys

from msr_adapter.llamafactory.installed import installed_templates, training_arguments


def test_the_templates_are_those_of_the_library() -> None:
    from llamafactory.data.template import TEMPLATES, ReasoningTemplate

    found = installed_templates()
    assert found.keys() == TEMPLATES.keys()
    for name, template in TEMPLATES.items():
        assert found[name].takes_images == (template.mm_plugin.image_token is not None), name
        assert found[name].thinks == isinstance(template, ReasoningTemplate), name
    assert sum(one.takes_images for one in found.values()) > 20
    assert sum(one.thinks for one in found.values()) > 5


def test_the_arguments_are_those_of_the_library() -> None:
    from llamafactory.hparams.parser import _TRAIN_ARGS

    assert training_arguments() == {field.name for part in _TRAIN_ARGS for field in dataclasses.fields(part)}


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from msr_adapter.llamafactory.installed import installed_templates, training_arguments;"
        "installed_templates(); training_arguments();"
        "assert not {'torch', 'transformers', 'llamafactory'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
