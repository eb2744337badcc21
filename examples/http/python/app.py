"""A component that serves HTTP, in Python: it greets whoever asks, and sends back what is sent to it.

GET /fetch/HOST:PORT/PATH asks another server, which the pod has to be granted (`wasmlet.dev/egress`).

`componentize-py` makes a component of this file and the world `asking` of ../http.wit, with CPython inside. The modules
`wit_world` and `componentize_py_types` are what it writes for the interfaces there.
"""

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import environment, outgoing_handler
from wit_world.imports.streams import InputStream, OutputStream, StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    IncomingResponse,
    Method_Get,
    Method_Head,
    Method_Post,
    Method_Put,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Http,
)

FETCH = "/fetch/"
READ = 64 * 1024
WRITTEN = 4096
"""Bytes of one write that is waited for, at most."""


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        method, path = request.method(), request.path_with_query() or "/"
        if isinstance(method, Method_Get) and path.startswith(FETCH):
            fetch(response_out, path.removeprefix(FETCH))
        elif isinstance(method, (Method_Get, Method_Head)):
            name = dict(environment.get_environment()).get("HOSTNAME", "a component")
            answer(response_out, 200, f"Hello from {name}: {path}\n")
        elif isinstance(method, (Method_Post, Method_Put)):
            send_back(request, response_out)
        else:
            answer(response_out, 405, "GET or POST\n")


def answer(out: ResponseOutparam, status: int, text: str) -> None:
    body = begin(out, status)
    with body.write() as stream:
        write(stream, text.encode())
    OutgoingBody.finish(body, None)


def fetch(out: ResponseOutparam, target: str) -> None:
    """Ask another server, and answer what it answers."""
    authority, _, path = target.partition("/")
    request = OutgoingRequest(Fields())
    request.set_scheme(Scheme_Http())
    request.set_authority(authority)
    request.set_path_with_query(f"/{path}")
    try:
        future = outgoing_handler.handle(request, None)
        with future.subscribe() as answered:
            answered.block()
        found = future.get()
        if isinstance(found, Ok) and isinstance(found.value, Ok):
            send_back(found.value.value, out, found.value.value.status())
            return
        reason = found.value.value if isinstance(found, Ok) else found
    except Err as error:
        reason = error.value
    answer(out, 502, f"{authority}: {type(reason).__name__.removeprefix('ErrorCode_')}\n")


def send_back(message: IncomingRequest | IncomingResponse, out: ResponseOutparam, status: int = 200) -> None:
    """Answer with the body of the message, piece by piece as it arrives."""
    body = begin(out, status)
    with message.consume() as incoming, incoming.stream() as source, body.write() as stream:
        while part := read(source):
            write(stream, part)
    OutgoingBody.finish(body, None)


def begin(out: ResponseOutparam, status: int) -> OutgoingBody:
    fields = Fields()
    fields.append("content-type", b"text/plain; charset=utf-8")
    response = OutgoingResponse(fields)
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(out, Ok(response))
    return body


def read(stream: InputStream) -> bytes:
    """The next bytes; none at the end."""
    try:
        return stream.blocking_read(READ)
    except Err as error:
        if isinstance(error.value, StreamError_Closed):
            return b""
        raise


def write(stream: OutputStream, data: bytes) -> None:
    for start in range(0, len(data), WRITTEN):
        stream.blocking_write_and_flush(data[start : start + WRITTEN])
