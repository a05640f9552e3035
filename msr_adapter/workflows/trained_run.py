"""A run brought as far as scoring needs it, for the commands that use its trained model on other users or items."""

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.pipeline.kept import is_there
from msr_adapter.pipeline.planning import TRAIN
from msr_adapter.pipeline.repeated_trainings import first_training
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import run_checked
from msr_adapter.progress import Reporter


def bring_to_scoring(loaded: LoadedPipeline, reporter: Reporter, *, train: bool) -> bool:
    """Bring data and summaries up to date, and make the trained model where there is none.

    Returns whether there was one, which is then to be taken as it is (`use_trained`, under the folder's lock); with
    ``train`` it is brought up to date instead. A pipeline with `evaluate.scorer` asks a server and needs none.
    """
    served = loaded.pipeline.evaluate.scorer is not None
    as_it_is = not served and not train and is_there(RunFolder(loaded.run_dir), TRAIN)
    run_checked(first_training(loaded), ("users" if served or as_it_is else TRAIN,), reporter=reporter)
    return as_it_is
