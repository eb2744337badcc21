"""Does work in a process of its own, whose memory is gone with it: for a zygote, before it forks anything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

_LENGTH = 4
"""Bytes of a length."""


def apart(work: Callable[[], Iterable[bytes]]) -> list[bytes]:
    """What this returns in a child of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)  # else a zygote that is gone would be waited for without end
            with open(writer, "wb") as answers:
                for found in work():
                    answers.write(len(found).to_bytes(_LENGTH, "little") + found)
        finally:
            os._exit(0)
    os.close(writer)
    answers_found = []
    with open(reader, "rb") as answers:
        while length := answers.read(_LENGTH):
            answers_found.append(answers.read(int.from_bytes(length, "little")))
    os.waitpid(child, 0)
    return answers_found
