"""The picture inside of a form, as browsers and `curl --form` send it."""

from __future__ import annotations

from email.message import Message

from ssd_centernet.serve.settings import Refused

FORM = "multipart/form-data"
# Names of the other parts are not looked at, and a form with many is no form of a picture.
_MAX_PARTS = 8


def picture_of_form(body: bytes, content_type: str) -> bytes:
    """Return the content of the one file of a form.

    Args:
        body: of the request.
        content_type: its header, with the boundary of the parts.

    Returns:
        The bytes of the file, whatever the name of its field.

    Raises:
        Refused: the body is no form with one file.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise Refused(400, "The form's Content-Type names no boundary.")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary.encode("latin-1", "replace"), parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, "The form is damaged or cut off.") from error
    if not parts.whole:
        raise Refused(400, "The form is damaged or cut off.")
    if len(parts.files) != 1:
        raise Refused(400, f"The form holds {len(parts.files)} files: send one picture.")
    return parts.files[0]


class _Parts:
    """Collect the files among the parts of a form."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.whole = False
        self._count = 0
        self._name, self._value = b"", b""
        self._is_file = False
        self._content: list[bytes] = []

    def callbacks(self) -> dict:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._of_field,
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MAX_PARTS:
            raise Refused(400, f"The form has more than {_MAX_PARTS} parts: send one picture.")
        self._is_file, self._content = False, []

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _of_field(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        if self._name.lower() == b"content-disposition":
            disposition = Message()
            disposition["content-disposition"] = self._value.decode("latin-1")
            self._is_file = disposition.get_filename() is not None
        self._name, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._content.append(data[start:end])

    def _end(self) -> None:
        if self._is_file:
            self.files.append(b"".join(self._content))

    def _finish(self) -> None:
        self.whole = True
