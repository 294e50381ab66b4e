"""Files of a ``multipart/form-data`` body, one after another, without holding any of them in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from edge_sdk.server.settings import RequestError

_LONGEST_FIELD = 1024  # bytes of a field that is no file


class MultipartFiles:
    """Iterates over the files of a body; :attr:`fields` holds the other fields that came before.

    Parameters
    ----------
    content_type
        Of the request; states the boundary.
    body
        Chunks of the request.

    Raises
    ------
    RequestError
        From the iteration: the body is not valid, or a field is too long.
    """

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise RequestError(422, "the multipart body states no boundary")
        self.fields: dict[str, str] = {}
        self._body = body
        self._parse_header = parse_options_header
        self._events: list[tuple[str, bytes]] = []
        names = ("part_begin", "part_end", "headers_finished")
        data_names = ("part_data", "header_field", "header_value")
        callbacks = {f"on_{name}": self._mark(name) for name in names} | {f"on_{n}": self._data(n) for n in data_names}
        callbacks["on_header_end"] = self._mark("header_end")
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        self._headers: dict[str, bytes] = {}
        self._header = [b"", b""]

    def _mark(self, name: str) -> object:
        return lambda: self._events.append((name, b""))

    def _data(self, name: str) -> object:
        return lambda data, start, end: self._events.append((name, bytes(data[start:end])))

    async def __aiter__(self) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """Yield name and content of each file; the content is read before the next one is asked for."""
        events = self._read()
        async for kind, _ in events:
            if kind != "headers_finished":
                continue
            _, options = self._parse_header(self._headers.get("content-disposition", b""))
            self._headers = {}
            field = options.get(b"name", b"").decode("utf-8", "replace")
            name = options.get(b"filename")
            if name is None:
                await self._take_field(field, events)
            else:
                content = self._content(events)
                yield name.decode("utf-8", "replace") or "file", content
                async for _chunk in content:
                    pass

    async def _take_field(self, field: str, events: AsyncIterator[tuple[str, bytes]]) -> None:
        value = b""
        async for chunk in self._content(events):
            value += chunk
            if len(value) > _LONGEST_FIELD or len(self.fields) > 20:
                raise RequestError(422, f"the field {field[:40]!r} is too long, or there are too many")
        self.fields[field] = value.decode("utf-8", "replace")

    @staticmethod
    async def _content(events: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[bytes]:
        async for kind, data in events:
            if kind == "part_data":
                yield data
            elif kind == "part_end":
                return

    async def _read(self) -> AsyncIterator[tuple[str, bytes]]:
        from python_multipart.exceptions import MultipartParseError

        async for chunk in self._body:
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise RequestError(422, f"the multipart body is not valid ({error})") from None
            events, self._events = self._events, []
            for kind, data in events:
                if kind == "header_field":
                    self._header[0] += data
                elif kind == "header_value":
                    self._header[1] += data
                elif kind == "header_end":
                    self._headers[self._header[0].decode("latin-1").lower()] = self._header[1]
                    self._header = [b"", b""]
                else:
                    yield kind, data
