"""An async web handler: text is sent as it is written, to many at once, and nothing is left when one leaves.

    python examples/web_handler.py lyrics.bundle
    curl -N --get localhost:8000 --data-urlencode prompt=分开 -d length=50

It shows `astream`, with nothing but the standard library; `steprnn serve` is a whole server.
"""

from __future__ import annotations

import argparse
import asyncio
from urllib.parse import parse_qsl, urlsplit

from steprnn.runtime import Model, SteprnnError, load

MOST = 1000  # characters to write, and of a prompt
SECONDS = 10  # for a client to say what it wants, or to take what it gets


async def answer(model: Model, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request and its response; a client that goes away ends the text it was getting."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        query = dict(parse_qsl(urlsplit(head.split()[1].decode("ascii")).query))
        await respond(model, query, writer)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError, OSError):
        pass  # it left, or it does not speak HTTP
    except asyncio.TimeoutError:
        pass
    finally:
        writer.close()


async def respond(model: Model, query: dict[str, str], writer: asyncio.StreamWriter) -> None:
    """Send the text that follows `prompt` in chunks, one for each piece."""
    prompt = query.get("prompt", "")[:MOST]
    try:
        pieces = model.astream(
            prompt,
            min(int(query.get("length", 50)), MOST),
            temperature=float(query.get("temperature", 0.8)),
            seed=int(query["seed"]) if "seed" in query else None,
        )
    except (SteprnnError, ValueError) as error:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n" + HEADERS + chunk(f"{error}\n") + chunk(""))
        await writer.drain()
        return
    writer.write(b"HTTP/1.1 200 OK\r\n" + HEADERS + chunk(prompt))
    async for piece in pieces:
        writer.write(chunk(piece))
        await asyncio.wait_for(
            writer.drain(), SECONDS
        )  # raises when the client has gone, and waits for a slow one
    writer.write(chunk("\n") + chunk(""))
    await writer.drain()


HEADERS = (
    b"Content-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
)


def chunk(text: str) -> bytes:
    """A chunk of a response; an empty one is the last."""
    data = text.encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


async def main() -> None:
    """Serve on the loopback interface until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    arguments = parser.parse_args()
    model = load(arguments.bundle)
    server = await asyncio.start_server(
        lambda reader, writer: answer(model, reader, writer), "127.0.0.1", arguments.port
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
