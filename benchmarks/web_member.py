"""A member that publishes the address of one backend, and answers every request with it."""

from __future__ import annotations

import asyncio
import sys

import uvloop

import arke


async def main(port: int, backend: str) -> None:
    service = arke.Service("web", port=port, metadata={"http": backend})

    @service.on_request
    async def answer(request: arke.Request) -> bytes:  # noqa: ARG001 - the answer is always the same
        return backend.encode()

    async with service:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
