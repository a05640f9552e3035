"""The data stage: interaction logs, titles and covers in; examples, frozen candidates and an audit out."""

from msr_adapter.data.build import build
from msr_adapter.data.check import check, protocol_stamp, source_stamp

__all__ = ["build", "check", "protocol_stamp", "source_stamp"]
