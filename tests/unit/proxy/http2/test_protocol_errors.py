from __future__ import annotations

import h2.exceptions
import pytest
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack.exceptions import HPACKDecodingError
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PushPromiseFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from arke_proxy.http2.abuse_limits import PREFACE
from arke_proxy.http2.h2_setup import new_connection, send_settings
from arke_proxy.http2.protocol_errors import code_name, describe


@pytest.mark.parametrize(
    ("frame", "description"),
    [
        (WindowUpdateFrame(0, window_increment=2**31 - 1), "flow control was violated"),
        (SettingsFrame(0, {4: 2**31}), "a setting has an invalid value"),
        (DataFrame(1, b"x"), "not allowed at this point"),
        (HeadersFrame(1, b"\x80", flags=["END_HEADERS"]), "cannot be decompressed"),
        (PushPromiseFrame(1, 2, b"", flags=["END_HEADERS"]), "not allowed at this point"),
    ],
    ids=["window", "setting", "stream", "compression", "push"],
)
def test_h2_errors_are_translated(frame: Frame, description: str) -> None:
    connection = new_connection()
    send_settings(connection)
    data = PREFACE + SettingsFrame(0, {}).serialize() + frame.serialize()
    with pytest.raises(ProtocolError) as raised:
        connection.receive_data(data)
    assert description in describe(raised.value)


def test_descriptions_hide_internals_of_h2() -> None:
    errors = [ProtocolError("Invalid input ConnectionInputs.RECV_PING")]
    errors.append(h2.exceptions.StreamClosedError(1))
    errors.append(h2.exceptions.StreamIDTooLowError(1, 3))
    errors[0].__cause__ = HPACKDecodingError()
    for error in errors:
        assert "Input" not in describe(error)
        assert describe(error)[0].islower()


def test_error_codes_are_named() -> None:
    assert code_name(ErrorCodes.FLOW_CONTROL_ERROR) == "FLOW_CONTROL_ERROR"
    assert code_name(99) == "error code 99"
