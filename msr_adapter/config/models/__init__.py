"""The config models: what a pipeline and a protocol may say. Frozen; unknown keys are refused.

Precedence: defaults < `extends:` parents < the file < ``--set``. Relative paths are resolved against the YAML that
names them before these models see them. Each field's documentation stands right under it.
"""

from msr_adapter.config.models.base import Model
from msr_adapter.config.models.data import Data, Images, KCore, Limit, Split
from msr_adapter.config.models.evaluate import (
    FITTED_BASELINES,
    BaselineName,
    Confidence,
    Evaluate,
    Protocol,
    SASRec,
    SliceTables,
)
from msr_adapter.config.models.execution import Execution
from msr_adapter.config.models.launch import Launch
from msr_adapter.config.models.model import AUTO, ModelRef, Server
from msr_adapter.config.models.negatives import Mixture, Negatives, TrainNegatives
from msr_adapter.config.models.pipeline import Pipeline
from msr_adapter.config.models.selection import Selection
from msr_adapter.config.models.sources import (
    AmazonSource,
    Columns,
    HMSource,
    HubTable,
    HuggingFaceSource,
    KuaiRecSource,
    MicroLensSource,
    MMRecSource,
    MovieLensSource,
    OfficialAmazonSource,
    PixelRecSource,
    RecBoleSource,
    ShopSource,
    Source,
    TableSource,
)
from msr_adapter.config.models.summarize import ItemSummaries, Summarize, UserSummaries
from msr_adapter.config.models.train import Answers, Freeze, Lora, Method, Objective, Preference, Train

__all__ = [
    "AUTO",
    "FITTED_BASELINES",
    "AmazonSource",
    "Answers",
    "BaselineName",
    "Columns",
    "Confidence",
    "Data",
    "Evaluate",
    "Execution",
    "Freeze",
    "HMSource",
    "HubTable",
    "HuggingFaceSource",
    "Images",
    "ItemSummaries",
    "KCore",
    "KuaiRecSource",
    "Launch",
    "Limit",
    "Lora",
    "MMRecSource",
    "Method",
    "MicroLensSource",
    "Mixture",
    "Model",
    "ModelRef",
    "MovieLensSource",
    "Negatives",
    "Objective",
    "OfficialAmazonSource",
    "Pipeline",
    "PixelRecSource",
    "Preference",
    "Protocol",
    "RecBoleSource",
    "SASRec",
    "Selection",
    "Server",
    "ShopSource",
    "SliceTables",
    "Source",
    "Split",
    "Summarize",
    "TableSource",
    "Train",
    "TrainNegatives",
    "UserSummaries",
]
