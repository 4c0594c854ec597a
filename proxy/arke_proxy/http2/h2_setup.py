"""Configures the `h2` library for this proxy."""

from __future__ import annotations

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection, _decode_headers
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import TooManyStreamsError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hpack import Encoder
from hpack.struct import Header
from hyperframe.frame import Frame, HeadersFrame

from arke_proxy.http2.abuse_limits import MAX_DECODED_LIST, MAX_FRAME, MAX_HEADER_LIST

_MAX_STREAMS = 100
_STREAM_WINDOW = 65_535  # bytes of a request's body that are buffered for a slow backend
_CONNECTION_WINDOW = 512 * 1024  # so that a few slow backends do not block the other streams
_ENCODER_TABLE = 4096  # bytes of response fields that need not be sent again
_INITIAL_WINDOW = 65_535  # of a connection; settings do not change it
_SETTINGS = {
    SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
    SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
    SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
    SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
}
# The proxy validates header fields itself: that is faster, and rejects one stream instead of
# closing the connection.
_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class BoundedEncoder(Encoder):
    """Limits the memory of the encoder's table, however much the client allows."""

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = self.header_table.maxsize = min(value, _ENCODER_TABLE)
        if self.header_table.resized:
            self.table_size_changes.append(size)  # sent before the next fields


class UncountedStream(H2Stream):
    """Does not check Content-Length: the library would close the connection for a mismatch."""

    def _initialize_content_length(self, headers: Iterable[Header]) -> None:
        pass

    def _track_content_length(self, length: int, end_stream: bool) -> None:
        pass


class ServerH2Connection(H2Connection):
    """Refuses single streams over the limit, and remembers fewer closed streams."""

    MAX_CLOSED_STREAMS = 1024  # the default of 65,536 takes megabytes

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        try:
            return super()._receive_headers_frame(frame)
        except TooManyStreamsError:
            # The library would close the connection, and end the running requests with it.
            # The table of compressed fields must stay as the client knows it.
            fields = _decode_headers(self.decoder, frame.data)
            stream = self._get_or_create_stream(frame.stream_id, AllowedStreamIDs.ODD)
            stream.receive_headers(fields, "END_STREAM" in frame.flags, None)
            self.reset_stream(frame.stream_id, ErrorCodes.REFUSED_STREAM)
            return [], [_refused(frame.stream_id)]

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = UncountedStream  # the library has no hook for the class of a stream
        return stream


def _refused(stream_id: int) -> StreamReset:
    code = ErrorCodes.REFUSED_STREAM
    return StreamReset(stream_id=stream_id, error_code=code, remote_reset=False)


def new_connection() -> H2Connection:
    """Make the protocol state of a connection; `send_settings` starts it."""
    connection = ServerH2Connection(_CONFIG)
    connection.encoder = BoundedEncoder()
    connection.decoder.max_header_list_size = MAX_DECODED_LIST
    connection.local_settings = Settings(client=False, initial_values=_SETTINGS)
    return connection


def send_settings(connection: H2Connection) -> None:
    """Queue the server's preface: SETTINGS, and the connection's flow-control window."""
    connection.initiate_connection()
    connection.increment_flow_control_window(_CONNECTION_WINDOW - _INITIAL_WINDOW)
