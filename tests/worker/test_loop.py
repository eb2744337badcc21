"""The event loop of the shim: in which order it calls what is to be called."""

from __future__ import annotations

import os

from wasmlet.worker.loop import READ, Loop


def test_what_is_ready_does_not_wait_for_what_is_to_be_done_soon() -> None:
    """Not for what an earlier callback of the same turn has asked for, either; and that waits for nothing else."""
    loop, order, descriptors = Loop(), list[str](), os.pipe()
    reader, writer = descriptors

    def read(_: int) -> None:
        order.append(os.read(reader, 100).decode())
        if order == ["first"]:
            loop.soon(lambda: order.append("soon"))
            os.write(writer, b"second")
        else:
            loop.soon(stop)

    def stop() -> None:
        loop.stopped = True

    loop.add(reader, READ, read)
    os.write(writer, b"first")
    loop.run()
    assert order == ["first", "second", "soon"]
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_timer_may_be_due_in_years() -> None:
    """A grace period may have ten years, and epoll waits for 24 days at most."""
    loop, (reader, writer) = Loop(), os.pipe()

    def stop(_: int) -> None:
        loop.stopped = True

    late = loop.later(1e10, lambda: None)
    loop.add(reader, READ, stop)
    os.write(writer, b"x")
    loop.run()
    assert late.callback is not None
    for descriptor in (reader, writer):
        os.close(descriptor)
