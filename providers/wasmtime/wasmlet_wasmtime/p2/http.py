"""wasi:http/types: requests and responses, as a guest sees them."""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeAlias

from .bodies import Broken, Feed, IncomingBody, OutgoingBody
from .fields import Fields, Pairs
from .instances import Failed, Instance, Resource, once, resource
from .streams import IoError
from .world import function

_TYPES = "wasi:http/types"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
PATH = re.compile(r"[\x21-\x22\x24-\x7e]*")
"""Visible characters without `#`: a URL's fragment, which begins with it, is not sent."""
_AUTHORITY = re.compile(r"[-A-Za-z0-9._~!$&'()*+,;=%\[\]:@]+")
Method: TypeAlias = tuple[str, Any]
Scheme: TypeAlias = tuple[str, Any]


def method_of(text: str) -> Method:
    """A method as the variant of the interface."""
    return (text.lower(), None) if text in _METHODS else ("other", text)


def method_text(method: Method) -> str:
    """A method as text, as HTTP spells it."""
    return str(method[1]) if method[0] == "other" else method[0].upper()


class Exchange(Protocol):
    """A request that the guest answers (implemented in `exchanges`)."""

    def respond(self, response: OutgoingResponse) -> None:
        """Set the response."""
        ...

    def refuse(self, code: tuple[str, Any]) -> None:
        """The guest gives no response, for this reason."""
        ...

    def inform(self, status: int, fields: Pairs) -> None:
        """Send an informational response (1xx) before the response itself.

        Raises:
            Broken: it cannot be sent.
        """
        ...


@resource("incoming-request")
class IncomingRequest(Resource):
    """A request that has come."""

    def __init__(self, method: str, path: str | None, authority: str | None, fields: Pairs, feed: Feed) -> None:
        self.method, self.path, self.authority = method_of(method), path, authority
        self.fields, self.feed = fields, feed
        self.consumed = False


@resource("response-outparam")
class ResponseOutparam(Resource):
    """Where the guest puts its response, once."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange


@resource("outgoing-response")
class OutgoingResponse(Resource):
    """A response that the guest sends."""

    def __init__(self, fields: Pairs) -> None:
        self.fields = fields
        self.status = 200
        self.body: OutgoingBody | None = None


@resource("outgoing-request")
class OutgoingRequest(Resource):
    """A request that the guest sends."""

    def __init__(self, fields: Pairs) -> None:
        self.fields = fields
        self.method: Method = ("get", None)
        self.path: str | None = None
        self.scheme: Scheme | None = None
        self.authority: str | None = None
        self.body: OutgoingBody | None = None


@resource("request-options")
class RequestOptions(Resource):
    """How long parts of a request may take, in nanoseconds."""

    connect: int | None = None
    first_byte: int | None = None
    between_bytes: int | None = None


@resource("incoming-response")
class IncomingResponse(Resource):
    """A response that has come."""

    def __init__(self, status: int, fields: Pairs, feed: Feed) -> None:
        self.status, self.fields, self.feed = status, fields, feed
        self.consumed = False

    def close(self) -> None:
        if not self.consumed:
            self.feed.close()


def _length(fields: Pairs) -> int | None:
    """The length of the body that the fields declare; None if they declare none.

    Raises:
        Failed: they declare no valid length.
    """
    found = {value.strip() for name, value in fields if name.lower() == "content-length"}
    if not found:
        return None
    (text, *more) = found
    if more or not text.isdigit() or len(text) > 18:
        raise Failed
    return int(text)


def _body(message: OutgoingRequest | OutgoingResponse, size_code: str) -> OutgoingBody:
    """Make the body of a message, once.

    Raises:
        Failed: it was made already.
    """
    if message.body is not None:
        raise Failed
    message.body = OutgoingBody(_length(message.fields), size_code)
    return message.body


@function(f"{_TYPES}.http-error-code")
def _http_error_code(instance: Instance, error: IoError) -> Any:
    return error.http


@function(f"{_TYPES}.[method]incoming-request.method")
def _method(instance: Instance, request: IncomingRequest) -> Method:
    return request.method


@function(f"{_TYPES}.[method]incoming-request.path-with-query")
def _path(instance: Instance, request: IncomingRequest) -> str | None:
    return request.path


@function(f"{_TYPES}.[method]incoming-request.scheme")
def _scheme(instance: Instance, request: IncomingRequest) -> Scheme:
    return "HTTP", None


@function(f"{_TYPES}.[method]incoming-request.authority")
def _authority(instance: Instance, request: IncomingRequest) -> str | None:
    return request.authority


@function(
    f"{_TYPES}.[method]incoming-request.headers", f"{_TYPES}.[method]incoming-response.headers",
    f"{_TYPES}.[method]outgoing-request.headers", f"{_TYPES}.[method]outgoing-response.headers",
)  # fmt: skip
def _headers(instance: Instance, message: Any) -> Fields:
    return Fields(list(message.fields), fixed=True)


@function(f"{_TYPES}.[method]incoming-request.consume", f"{_TYPES}.[method]incoming-response.consume")
def _consume(instance: Instance, message: Any) -> IncomingBody:
    once(message, "consumed")
    return IncomingBody(message.feed)


@function(f"{_TYPES}.[constructor]outgoing-response")
def _response(instance: Instance, fields: Fields) -> OutgoingResponse:
    return OutgoingResponse(fields.pairs)


@function(f"{_TYPES}.[method]outgoing-response.status-code")
def _status_code(instance: Instance, response: OutgoingResponse) -> int:
    return response.status


@function(f"{_TYPES}.[method]outgoing-response.set-status-code")
def _set_status_code(instance: Instance, response: OutgoingResponse, status: int) -> None:
    if not 200 <= status <= 999:
        raise Failed
    response.status = status


@function(f"{_TYPES}.[method]outgoing-response.body")
def _response_body(instance: Instance, response: OutgoingResponse) -> OutgoingBody:
    return _body(response, "HTTP-response-body-size")


@function(f"{_TYPES}.[static]response-outparam.set")
def _set(instance: Instance, outparam: ResponseOutparam, response: tuple[bool, Any]) -> None:
    good, content = response
    if good:
        outparam.exchange.respond(content)
    else:
        outparam.exchange.refuse(content)


@function(f"{_TYPES}.[method]response-outparam.send-informational")
def _inform(instance: Instance, outparam: ResponseOutparam, status: int, fields: Fields) -> None:
    if not 102 <= status < 200:
        raise Failed(("internal-error", "expected a status from 102 to 199"))
    try:
        outparam.exchange.inform(status, fields.pairs)
    except Broken as error:
        raise Failed(error.code) from None


@function(f"{_TYPES}.[method]incoming-response.status")
def _incoming_status(instance: Instance, response: IncomingResponse) -> int:
    return response.status


@function(f"{_TYPES}.[constructor]outgoing-request")
def _request(instance: Instance, fields: Fields) -> OutgoingRequest:
    return OutgoingRequest(fields.pairs)


@function(f"{_TYPES}.[method]outgoing-request.body")
def _request_body(instance: Instance, request: OutgoingRequest) -> OutgoingBody:
    return _body(request, "HTTP-request-body-size")


@function(f"{_TYPES}.[method]outgoing-request.method")
def _get_method(instance: Instance, request: OutgoingRequest) -> Method:
    return request.method


@function(f"{_TYPES}.[method]outgoing-request.set-method")
def _set_method(instance: Instance, request: OutgoingRequest, method: Method) -> None:
    if not _TOKEN.fullmatch(method_text(method)):
        raise Failed
    request.method = method_of(method_text(method))


@function(f"{_TYPES}.[method]outgoing-request.path-with-query")
def _get_path(instance: Instance, request: OutgoingRequest) -> str | None:
    return request.path


@function(f"{_TYPES}.[method]outgoing-request.set-path-with-query")
def _set_path(instance: Instance, request: OutgoingRequest, path: str | None) -> None:
    if path is not None and not PATH.fullmatch(path):
        raise Failed
    request.path = path


@function(f"{_TYPES}.[method]outgoing-request.scheme")
def _get_scheme(instance: Instance, request: OutgoingRequest) -> Scheme | None:
    return request.scheme


@function(f"{_TYPES}.[method]outgoing-request.set-scheme")
def _set_scheme(instance: Instance, request: OutgoingRequest, scheme: Scheme | None) -> None:
    if scheme is not None and scheme[0] == "other" and not re.fullmatch(r"[A-Za-z][-A-Za-z0-9+.]*", scheme[1]):
        raise Failed
    request.scheme = scheme


@function(f"{_TYPES}.[method]outgoing-request.authority")
def _get_authority(instance: Instance, request: OutgoingRequest) -> str | None:
    return request.authority


@function(f"{_TYPES}.[method]outgoing-request.set-authority")
def _set_authority(instance: Instance, request: OutgoingRequest, authority: str | None) -> None:
    if authority is not None and not _AUTHORITY.fullmatch(authority):
        raise Failed
    request.authority = authority


@function(f"{_TYPES}.[constructor]request-options")
def _options(instance: Instance) -> RequestOptions:
    return RequestOptions()


def _option(name: str, attribute: str) -> None:
    def get(instance: Instance, options: RequestOptions) -> int | None:
        found: int | None = getattr(options, attribute)
        return found

    def put(instance: Instance, options: RequestOptions, nanoseconds: int | None) -> None:
        setattr(options, attribute, nanoseconds)

    function(f"{_TYPES}.[method]request-options.{name}")(get)
    function(f"{_TYPES}.[method]request-options.set-{name}")(put)


for _of_option, _attribute in (
    ("connect-timeout", "connect"), ("first-byte-timeout", "first_byte"), ("between-bytes-timeout", "between_bytes"),
):  # fmt: skip
    _option(_of_option, _attribute)
