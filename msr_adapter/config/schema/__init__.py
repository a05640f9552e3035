"""The config classes: what a pipeline and a protocol may say. Frozen; unknown keys are refused.

Precedence: defaults < `extends:` parents < the file < ``--set``. Relative paths are resolved against the YAML that
names them before these classes see them. Each field's documentation stands right under it.

pipeline   one experiment: the top level
data       what is kept of the log, images, the split
attributes  columns of items and users for the templates
events     what the events of a log mean
sources    one class per format of a log
synthetic  the generated dataset
tables     how a table is written, and what its columns are called
negatives  what candidate lists hold beside the positive
summarize  the item and the user summariser
model      a model in one of its roles; servers
backends   who can answer for a model: the table of backends
train      fine-tuning: objective, method, answers, checkpoints
evaluate   the protocol, baselines, slices
baselines  settings of the fitted baselines, what tuning tries
embedding  items and users as vectors; several retrievers in one
execution  devices of the training, workers of summaries and scores
tracking   where settings, curves, metrics and the report are sent
base       what all classes share
"""

from msr_adapter.config.schema.attributes import AttributeType, ItemAttributesConfig, UserAttributesConfig
from msr_adapter.config.schema.backends import BACKENDS, BackendRow
from msr_adapter.config.schema.base import StrictModel
from msr_adapter.config.schema.baselines import (
    FactorsConfig,
    FactorsGridConfig,
    GridConfig,
    ItemKNNConfig,
    ItemKNNGridConfig,
    SASRecConfig,
    SASRecGridConfig,
)
from msr_adapter.config.schema.data import DataConfig, ImagesConfig, KCoreConfig, LimitConfig, SplitConfig
from msr_adapter.config.schema.embedding import OWN, EmbeddingConfig, FusionConfig
from msr_adapter.config.schema.evaluate import (
    BaselineName,
    ColdItemsConfig,
    ConfidenceConfig,
    EvaluateConfig,
    FullConfig,
    HybridConfig,
    ProtocolConfig,
    RetrieverName,
    SliceTablesConfig,
    SweepRecordConfig,
)
from msr_adapter.config.schema.events import EventsConfig
from msr_adapter.config.schema.execution import ExecutionConfig, LaunchConfig
from msr_adapter.config.schema.model import AUTO, ModelConfig, ServerConfig
from msr_adapter.config.schema.negatives import MixtureConfig, NegativesConfig, TrainMixtureConfig, TrainNegativesConfig
from msr_adapter.config.schema.pipeline import PipelineConfig
from msr_adapter.config.schema.sources import (
    AmazonSourceConfig,
    HMSourceConfig,
    HuggingFaceSourceConfig,
    KuaiRecSourceConfig,
    MicroLensSourceConfig,
    MINDSourceConfig,
    MMRecSourceConfig,
    MovieLensSourceConfig,
    NetflixSourceConfig,
    OfficialAmazonSourceConfig,
    PixelRecSourceConfig,
    RecBoleSourceConfig,
    SourceConfig,
    SqlSourceConfig,
    TableSourceConfig,
)
from msr_adapter.config.schema.summarize import ItemSummariesConfig, SummarizeConfig, UserSummariesConfig
from msr_adapter.config.schema.synthetic import SyntheticSourceConfig
from msr_adapter.config.schema.tables import ColumnsConfig, FileFormatConfig, HubTableConfig, JoinConfig
from msr_adapter.config.schema.tracking import (
    MlflowConfig,
    TensorboardConfig,
    TrackerConfig,
    TrackingConfig,
    WandbConfig,
)
from msr_adapter.config.schema.train import (
    AnswersConfig,
    FreezeConfig,
    LoraConfig,
    Method,
    Objective,
    PreferenceConfig,
    Question,
    SelectionConfig,
    TextAnswerConfig,
    TrainConfig,
)

__all__ = [
    "AUTO",
    "BACKENDS",
    "OWN",
    "AmazonSourceConfig",
    "AnswersConfig",
    "AttributeType",
    "BackendRow",
    "BaselineName",
    "ColdItemsConfig",
    "ColumnsConfig",
    "ConfidenceConfig",
    "DataConfig",
    "EmbeddingConfig",
    "EvaluateConfig",
    "EventsConfig",
    "ExecutionConfig",
    "FactorsConfig",
    "FactorsGridConfig",
    "FileFormatConfig",
    "FreezeConfig",
    "FullConfig",
    "FusionConfig",
    "GridConfig",
    "HMSourceConfig",
    "HubTableConfig",
    "HuggingFaceSourceConfig",
    "HybridConfig",
    "ImagesConfig",
    "ItemAttributesConfig",
    "ItemKNNConfig",
    "ItemKNNGridConfig",
    "ItemSummariesConfig",
    "JoinConfig",
    "KCoreConfig",
    "KuaiRecSourceConfig",
    "LaunchConfig",
    "LimitConfig",
    "LoraConfig",
    "MINDSourceConfig",
    "MMRecSourceConfig",
    "Method",
    "MicroLensSourceConfig",
    "MixtureConfig",
    "MlflowConfig",
    "ModelConfig",
    "MovieLensSourceConfig",
    "NegativesConfig",
    "NetflixSourceConfig",
    "Objective",
    "OfficialAmazonSourceConfig",
    "PipelineConfig",
    "PixelRecSourceConfig",
    "PreferenceConfig",
    "ProtocolConfig",
    "Question",
    "RecBoleSourceConfig",
    "RetrieverName",
    "SASRecConfig",
    "SASRecGridConfig",
    "SelectionConfig",
    "ServerConfig",
    "SliceTablesConfig",
    "SourceConfig",
    "SplitConfig",
    "SqlSourceConfig",
    "StrictModel",
    "SummarizeConfig",
    "SweepRecordConfig",
    "SyntheticSourceConfig",
    "TableSourceConfig",
    "TensorboardConfig",
    "TextAnswerConfig",
    "TrackerConfig",
    "TrackingConfig",
    "TrainConfig",
    "TrainMixtureConfig",
    "TrainNegativesConfig",
    "UserAttributesConfig",
    "UserSummariesConfig",
    "WandbConfig",
]
