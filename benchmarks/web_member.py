"""A member that knows one back end: it publishes the address, and answers with it."""

from __future__ import annotations

import asyncio
import sys

import uvloop

import arke


async def main(port: int, back_end: str) -> None:
    service = arke.Service("web", port=port, metadata={"http": back_end})

    @service.on_request
    async def answer(request: arke.Request) -> bytes:  # noqa: ARG001 - whatever is asked
        return back_end.encode()

    async with service:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
