"""`msr demo-model`: the demo's tiny model, made again."""

from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import Json, Quiet, emit, exit_codes
from msr_adapter.filesystem import real


def demo_model(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is new or empty.", show_default=False)],
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Training steps; default: those of the bundled model.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same model.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train the demo's tiny vision-language model from scratch: it learns to describe images and to summarise users.

    Example: [bold]msr demo-model my-tiny --seed 1[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.output_paths import require_folder
        from msr_adapter.files import atomic_folder
        from msr_adapter.progress import Reporter

        require_folder(out, {}, "OUT")
        from msr_adapter.demo.build import STEPS, build_base  # imports torch: only once the folder is known to be fine

        with atomic_folder(out) as partial:
            summary = build_base(partial, steps or STEPS, seed, Reporter(quiet=quiet))
        model = real(out)
        emit({"model": str(model), **summary}, f"{model}\nUse it: --set train.model.path={model}", as_json)
