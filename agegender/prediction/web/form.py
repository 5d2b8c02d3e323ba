"""The file in a form: taken apart in memory, where Starlette's own reader would put a large file on the disk."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from agegender.prediction.web.refused import RefusedError

FIELD = b"file"
_MOST_PARTS = 16


class _Parts:
    """Follows the parser through a form and keeps what is in the first part of the wanted name."""

    def __init__(self) -> None:
        self.file: bytearray | None = None
        self.ended = False
        self._parts = 0
        self._name, self._value = bytearray(), bytearray()
        self._wanted = self._inside = False

    def begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise RefusedError(400, f"the form has more than {_MOST_PARTS} parts")
        self._wanted = self._inside = False

    def header_begin(self) -> None:
        self._name, self._value = bytearray(), bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._wanted = options.get(b"name") == FIELD

    def headers_finished(self) -> None:
        if self._wanted and self.file is None:
            self.file, self._inside = bytearray(), True

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._inside and self.file is not None:
            self.file += data[start:end]

    def end(self) -> None:
        self.ended = True


def file_of_form(body: bytes, boundary: bytes) -> bytes:
    """Returns what the field `file` of a form (multipart/form-data, RFC 7578) holds.

    Args:
        body: The whole form.
        boundary: Between its parts, without the dashes.

    Raises:
        RefusedError: The form is broken, or it has no such field.
    """
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_begin": parts.header_begin,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.data,
                "on_end": parts.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise RefusedError(400, "the form is broken") from None
    if not parts.ended:
        raise RefusedError(400, "the form is cut off")
    if parts.file is None:
        raise RefusedError(400, f'the form has no field "{FIELD.decode()}"')
    return bytes(parts.file)
