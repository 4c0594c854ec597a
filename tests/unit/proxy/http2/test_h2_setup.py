from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RemoteSettingsChanged, ResponseReceived
from h2.settings import SettingCodes
from hpack import Encoder

from arke_proxy.http2.h2_setup import new_connection, send_settings


def client() -> H2Connection:
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    return connection


def test_initial_settings_and_window() -> None:
    server, peer = new_connection(), client()
    send_settings(server)
    events = peer.receive_data(server.data_to_send())
    changed = next(event for event in events if isinstance(event, RemoteSettingsChanged))
    settings = {code: change.new_value for code, change in changed.changed_settings.items()}
    assert settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 100
    assert settings[SettingCodes.MAX_HEADER_LIST_SIZE] == 65_536
    assert settings[SettingCodes.INITIAL_WINDOW_SIZE] == 65_535
    assert peer.outbound_flow_control_window == 512 * 1024


def test_encoder_table_is_bounded() -> None:
    server, peer = new_connection(), client()
    send_settings(server)
    peer.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})
    request = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    peer.send_headers(1, request, end_stream=True)
    server.receive_data(peer.data_to_send())
    fields = [(b":status", b"200"), *((b"x-%d" % at, b"a" * 100) for at in range(1000))]
    server.send_headers(1, fields, end_stream=True)
    assert isinstance(server.encoder, Encoder)
    entries = server.encoder.header_table.dynamic_entries
    assert sum(len(name) + len(value) + 32 for name, value in entries) <= 4096
    peer.decoder.max_header_list_size = 1 << 20
    events = peer.receive_data(server.data_to_send())
    response = next(event for event in events if isinstance(event, ResponseReceived))
    assert len(response.headers or ()) == 1001


def test_number_of_remembered_closed_streams_is_bounded() -> None:
    assert new_connection().MAX_CLOSED_STREAMS <= 1024
