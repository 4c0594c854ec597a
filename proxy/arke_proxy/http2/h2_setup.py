"""The library `h2`, set up as this proxy needs it."""

from __future__ import annotations

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hpack import Encoder
from hpack.struct import Header

from arke_proxy.http2.abuse_limits import MAX_BLOCK, MAX_FRAME, MOST_OF_BLOCK

_MOST_STREAMS = 100
_STREAM_WINDOW = 65_535  # octets of a request's body that wait for its backend
_CONNECTION_WINDOW = 512 * 1024  # a few slow backends do not stop the others
_FIELD_TABLE = 4096  # octets of fields that need not be sent again
_WINDOW_AT_FIRST = 65_535  # of a connection, whatever the settings say
_SETTINGS = {
    SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
    SettingCodes.MAX_CONCURRENT_STREAMS: _MOST_STREAMS,
    SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
    SettingCodes.MAX_HEADER_LIST_SIZE: MAX_BLOCK,
}
# Fields are checked by our own rules, which cost less, and end one stream rather than all.
_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class _Encoder(Encoder):
    """Remembers no more fields of answers than it wants to, however many the client allows."""

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = self.header_table.maxsize = min(value, _FIELD_TABLE)
        if self.header_table.resized:
            self.table_size_changes.append(size)  # which the next fields begin with


class _Stream(H2Stream):
    """Counts no body: for one that is not as long as it says the library would end all requests."""

    def _initialize_content_length(self, headers: Iterable[Header]) -> None:
        pass

    def _track_content_length(self, length: int, end_stream: bool) -> None:
        pass


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = 1024  # remembered; 65,536 are megabytes

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = _Stream  # the library has no other way to say which it shall be
        return stream


def new_connection() -> H2Connection:
    """Make a connection's state; `begin` has it speak."""
    connection = _Connection(_CONFIG)
    connection.encoder = _Encoder()
    connection.decoder.max_header_list_size = MOST_OF_BLOCK
    connection.local_settings = Settings(client=False, initial_values=_SETTINGS)
    return connection


def begin(connection: H2Connection) -> None:
    """Say first what the client may do."""
    connection.initiate_connection()
    connection.increment_flow_control_window(_CONNECTION_WINDOW - _WINDOW_AT_FIRST)
