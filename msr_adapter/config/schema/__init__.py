"""The config models: what a pipeline and a protocol may say. Frozen; unknown keys are refused.

Precedence: defaults < `extends:` parents < the file < ``--set``. Relative paths are resolved against the YAML that
names them before these models see them. Each field's documentation stands right under it.
"""

from msr_adapter.config.schema.base import Model
from msr_adapter.config.schema.data import Data, Images, KCore, Limit, Split
from msr_adapter.config.schema.evaluate import (
    FITTED_BASELINES,
    BaselineName,
    Confidence,
    Evaluate,
    Protocol,
    SASRec,
    SliceTables,
)
from msr_adapter.config.schema.execution import Execution, Launch
from msr_adapter.config.schema.model import AUTO, ModelRef, Server
from msr_adapter.config.schema.negatives import Mixture, Negatives, TrainNegatives
from msr_adapter.config.schema.pipeline import Pipeline
from msr_adapter.config.schema.sources import (
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
from msr_adapter.config.schema.summarize import ItemSummaries, Summarize, UserSummaries
from msr_adapter.config.schema.train import Answers, Freeze, Lora, Method, Objective, Preference, Selection, Train

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
