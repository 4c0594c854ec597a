"""An HTTP/2 client that sends exactly the frames of a test."""

from __future__ import annotations

from collections.abc import Sequence

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from support.connection import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = Sequence[tuple[bytes, bytes]]

GET: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"example"),
    (b":path", b"/"),
]
POST: Fields = [(b":method", b"POST"), *GET[1:]]


class StreamReset(Exception):
    """The proxy has reset the stream; the argument is the code."""


class ConnectionClosed(Exception):
    """The proxy has ended the connection; the argument is the code."""


class RawHttp2:
    """HTTP/2 over a connection, in blocking calls."""

    def __init__(self, connection: Connection, **settings: int) -> None:
        """Start the connection, with settings such as INITIAL_WINDOW_SIZE."""
        self.connection = connection
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.unread: list[Frame] = []
        numbers = {getattr(SettingsFrame, name): value for name, value in settings.items()}
        connection.send(PREFACE + SettingsFrame(0, numbers).serialize())

    def send(self, *frames: Frame) -> None:
        self.connection.send(b"".join(frame.serialize() for frame in frames))

    def headers(self, stream: int, fields: Fields, *flags: str) -> HeadersFrame:
        """Make a HEADERS frame with these fields, without validation."""
        encoded = self.encoder.encode(fields, huffman=False)
        return HeadersFrame(stream, encoded, flags=["END_HEADERS", *flags])

    def get(self, stream: int, fields: Fields = GET) -> None:
        self.send(self.headers(stream, fields, "END_STREAM"))

    def read_frame(self) -> Frame:
        """Read one frame. The header fields of a response become its `fields`."""
        header = memoryview(self.connection.read_exactly(9))
        frame, length = Frame.parse_frame_header(header)
        frame.parse_body(memoryview(self.connection.read_exactly(length)))
        if isinstance(frame, HeadersFrame):
            frame.fields = dict(self.decoder.decode(frame.data, raw=True))  # type: ignore[attr-defined]
        return frame

    def read_until(self, kind: type[Frame] | tuple[type[Frame], ...]) -> Frame:
        while not isinstance(frame := self.read_frame(), kind):
            continue
        return frame

    def read_response(self, stream: int) -> tuple[dict[bytes, bytes], bytes]:
        """Read one response to its end. Raises StreamReset and ConnectionClosed."""
        return self.read_responses(stream)[stream]

    def read_responses(self, *streams: int) -> dict[int, tuple[dict[bytes, bytes], bytes]]:
        """Read these responses, in any order. Raises StreamReset and ConnectionClosed."""
        fields: dict[int, dict[bytes, bytes]] = {stream: {} for stream in streams}
        bodies = dict.fromkeys(streams, b"")
        open_ = set(streams)
        while open_:
            frame = self.read_frame()
            stream = frame.stream_id
            if isinstance(frame, GoAwayFrame):
                raise ConnectionClosed(frame.error_code)
            if stream not in open_:
                continue
            if isinstance(frame, RstStreamFrame):
                raise StreamReset(frame.error_code)
            if isinstance(frame, HeadersFrame):
                fields[stream] |= frame.fields  # type: ignore[attr-defined]
            elif isinstance(frame, DataFrame):
                bodies[stream] += frame.data
            if "END_STREAM" in frame.flags:
                open_.remove(stream)
        return {stream: (fields[stream], bodies[stream]) for stream in streams}

    def read_until_goaway(self) -> int:
        """Read to the end of the connection; return the code of the last GOAWAY."""
        code = -1
        while True:
            try:
                frame = self.read_frame()
            except (AssertionError, ConnectionError):
                return code
            if isinstance(frame, GoAwayFrame):
                code = frame.error_code
