"""The data stage: interaction logs, titles and covers in; examples, frozen candidates and an audit out."""

from msr_adapter.data.build import build
from msr_adapter.data.checks import check_data, check_protocol, protocol_stamp, source_stamp
from msr_adapter.data.negatives.files import export_candidates

__all__ = ["build", "check_data", "check_protocol", "export_candidates", "protocol_stamp", "source_stamp"]
