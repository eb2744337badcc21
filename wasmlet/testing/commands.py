"""What the reference provider does when kubectl runs a command in a container, or forwards a port.

It runs no real programs. So it has a few commands of its own, each of which does one thing that a caller may depend on:

| command | does |
|---|---|
| `echo WORD...`, `complain WORD...` | writes a line to stdout, to stderr |
| `cat` | writes what it reads, until stdin is closed |
| `count` | reads until stdin is closed, then writes how many bytes there were |
| `zeros N` | writes N zero bytes |
| `sizes` | writes each terminal size as `80x24`, until ended |
| `sleep SECONDS` | waits |
| `true`, `exit CODE` | ends, with that code |

Several of them may stand in one command, with `;` between them. A container's ports echo what is sent to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wasmlet.errors import InvalidInput
from wasmlet.provider import Channel, Streams

PIECE = 32 * 1024


async def play(command: Sequence[str], streams: Streams) -> int:
    """Run the parts of the command in order, until one does not end with 0. Returns its exit code, or 0.

    Raises:
        InvalidInput: there is no such command.
    """
    part: list[str] = []
    for word in (*command, ";"):
        if word != ";":
            part.append(word)
        elif (code := await _play(part, streams)) != 0:
            return code
        else:
            part = []
    return 0


async def _play(command: Sequence[str], streams: Streams) -> int:
    match list(command):
        case ["echo", *words]:
            await streams.write_stdout(" ".join(words).encode() + b"\n")
        case ["complain", *words]:
            await streams.write_stderr(" ".join(words).encode() + b"\n")
        case ["cat"]:
            while data := await streams.read_stdin():
                await streams.write_stdout(data)
        case ["count"]:
            total = 0
            while data := await streams.read_stdin():
                total += len(data)
            await streams.write_stdout(b"%d\n" % total)
        case ["zeros", number] if number.isdigit():
            for left in range(int(number), 0, -PIECE):
                await streams.write_stdout(bytes(min(PIECE, left)))
        case ["sizes"]:
            while True:
                columns, rows = await streams.next_size()
                await streams.write_stdout(b"%dx%d\n" % (columns, rows))
        case ["sleep", seconds] if seconds.replace(".", "", 1).isdigit():
            await asyncio.sleep(float(seconds))
        case ["exit", code] if code.isdigit():
            return int(code)
        case ["true"]:
            pass
        case _:
            raise InvalidInput(f'exec: "{" ".join(command)}": executable file not found in $PATH')
    return 0


async def echo(channel: Channel) -> None:
    """Send back what comes, until the caller sends no more."""
    while data := await channel.read():
        await channel.write(data)
