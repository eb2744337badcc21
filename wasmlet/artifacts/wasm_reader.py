"""Reads the basic values of a WebAssembly binary: numbers, names and so on. Errors say where the bytes are wrong."""

from __future__ import annotations

from wasmlet.artifacts.errors import BadContent

_MAX_NAME = 100_000
SORTS = {0x00: "core", 0x01: "function", 0x02: "value", 0x03: "type", 0x04: "component", 0x05: "instance"}
"""What a component's import or export may be, by its number in the binary format."""


class NotWasm(BadContent):
    """The bytes are no WebAssembly, or are damaged; the message says where."""


class Reader:
    """Reads bytes from `position` up to `end`. All methods raise `NotWasm` if bytes are missing or invalid."""

    def __init__(self, data: bytes | memoryview, position: int, end: int) -> None:
        self._data = data
        self.position = position
        self.end = end

    def wrong(self, what: str) -> NotWasm:
        return NotWasm(f"damaged at byte {self.position}: {what}")

    def take(self, count: int) -> bytes:
        if count > self.end - self.position:
            raise self.wrong(f"expected {count} bytes, found {self.end - self.position}")
        self.position += count
        return bytes(self._data[self.position - count : self.position])

    def peek(self, count: int) -> bytes:
        return bytes(self._data[self.position : min(self.position + count, self.end)])

    def byte(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > 0xFFFFFFFF:
                    break
                return value
        raise self.wrong("a number is too large")

    def s33(self) -> None:
        for _ in range(5):
            if self.byte() < 0x80:
                return
        raise self.wrong("a number is too large")

    def u64(self) -> None:
        for _ in range(10):
            if self.byte() < 0x80:
                return
        raise self.wrong("a number is too large")

    def count(self) -> int:
        """Read the number of items in a vector; each item takes at least one byte."""
        value = self.u32()
        if value > self.end - self.position:
            raise self.wrong(f"{value} items cannot fit")
        return value

    def name(self) -> str:
        length = self.u32()
        if length > _MAX_NAME:
            raise self.wrong("a name is too long")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong("a name is not UTF-8") from None

    def limits(self) -> None:
        flags = self.byte()
        self.u64()
        if flags & 1:
            self.u64()
        if flags & 8:
            self.u32()

    def reference(self) -> None:
        if self.byte() in (0x63, 0x64):
            self.s33()

    def extern_name(self) -> str:
        form = self.byte()
        if form > 2:
            raise self.wrong(f"form {form} of a component's name is not known")
        name = self.name()
        if form == 2:
            for _ in range(self.count()):
                if self.byte() == 1:
                    self.name()
        return name

    def description(self) -> tuple[str, int]:
        """Read the kind of a component's import or export, and the index of its type; -1 if it has none."""
        sort = self.byte()
        if sort == 0x00:
            if self.byte() != 0x11:
                raise self.wrong("expected a core module")
            return "core module", self.u32()
        if sort in (0x02, 0x03):
            bound = self.byte()
            if bound == 0x00 or (bound == 0x01 and sort == 0x02):
                self.s33()
            elif bound != 0x01:
                raise self.wrong(f"bound {bound} is not known")
            return SORTS[sort], -1
        if sort not in SORTS:
            raise self.wrong(f"sort {sort} is not known")
        return SORTS[sort], self.u32()
