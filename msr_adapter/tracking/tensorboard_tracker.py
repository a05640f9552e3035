"""Event files for TensorBoard, by its own writer: no torch is imported for them."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msr_adapter.tracking.outbox import Outbox, Point, Sent

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

_MS = 1000


class TensorboardRun:
    """The folder of an outbox's event files; each delivery adds one."""

    def __init__(self, outbox: Outbox, sent: Sent, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        shared = outbox.tracker.get("folder")
        self.run_id = outbox.key
        # Runs of one name, such as one with other settings, must not draw their curves over each other.
        place = Path(shared) / f"{outbox.name}-{outbox.key[:6]}" if shared else folder / "events"
        self.url = str(place)
        place.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(place))

    def send_settings(self, settings: Mapping[str, str]) -> None:
        """Write them as a text, one a line."""
        rows = "\n".join(f"    {key}: {value}" for key, value in settings.items())
        self._text("settings", rows)

    def send_points(self, points: Iterable[Point]) -> None:
        """Write them as scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            value = Summary.Value(tag=point.name, simple_value=point.value)
            self._add(value, point.step, point.time / _MS)

    def send_files(self, files: Mapping[str, Path]) -> None:
        """Write where they are: event files hold no files."""
        self._text("files", "\n".join(f"    {path}" for path in files.values()))

    def close(self, status: str) -> None:
        """Write the status as a text, and all to the disk."""
        self._text("status", json.dumps(status))
        self._writer.close()

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        plugin = SummaryMetadata.PluginData(plugin_name="text")
        value = Summary.Value(tag=f"{tag}/text_summary", metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)
        self._add(value, 0, time.time())

    def _add(self, value: "Summary.Value", step: int, seconds: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._writer.add_event(Event(wall_time=seconds, step=step, summary=Summary(value=[value])))
