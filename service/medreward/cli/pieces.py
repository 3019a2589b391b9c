"""The input of `score-file --ray` in pieces that are scored apart: files on a disk or in object storage."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from medreward.cli.rows import BASE64, ITEM, LONGEST_PATH, SUFFIXES, Row, import_pyarrow, json_row
from medreward.errors import ConfigurationError

READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that follow each other in one file. What it is called decides nothing: its number orders the output."""

    number: int
    path: str
    first: int  # number of its first row in the whole input
    rows: int
    group: int  # Parquet: the row group; JSONL: 0
    start: int  # Parquet: the first row in the group; JSONL: the first byte
    stop: int


class Input:
    """A JSONL or Parquet file, or a folder of them, named by a path or by a URI such as s3://bucket/rows.parquet."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._files, self._path = open_place(place)
        self._is_local = "://" not in place
        self._images = _Images(self._files, str(PurePosixPath(self._path).parent), self._is_local)
        self._group: tuple[str, int, Any] = ("", 0, None)  # the row group that was read last

    def files(self) -> list[Any]:
        """Returns what is known of each file, in the order of their paths. Raises ConfigurationError for none."""
        from pyarrow import fs

        info = self._files.get_file_info(self._path)
        if info.type == fs.FileType.Directory:
            inside = self._files.get_file_info(fs.FileSelector(self._path, recursive=True))
            files = sorted((one for one in inside if one.path.endswith(SUFFIXES)), key=lambda one: str(one.path))
        else:
            files = [info] if info.type == fs.FileType.File and info.path.endswith(SUFFIXES) else []
        if not files:
            raise ConfigurationError(f"{self.place} is no {' or '.join(SUFFIXES)} file, and no folder with such files")
        return files

    def digest(self) -> str:
        """Returns what tells this input from another: names, sizes and times of its files, for they may be huge."""
        about = [(one.path.removeprefix(self._path), one.size, one.mtime_ns) for one in self.files()]
        return f"sha256:{hashlib.sha256(repr(about).encode()).hexdigest()}"

    def pieces(self, rows: int) -> Iterator[Piece]:
        """Gives the input in pieces of up to `rows` rows, numbered from 0. A JSONL file is read once for it."""
        number = first = 0
        for file in self.files():
            split = self._parquet_pieces if file.path.endswith(".parquet") else self._json_pieces
            for group, start, stop, count in split(file.path, rows):
                yield Piece(number, file.path, first, count, group, start, stop)
                number, first = number + 1, first + count

    def read(self, piece: Piece) -> list[Row]:
        """Returns the rows, with the images that they name by a URI or in object storage read."""
        rows = self._parquet_rows(piece) if piece.path.endswith(".parquet") else self._json_rows(piece)
        return [self._images.read(row) for row in rows]

    def _json_pieces(self, path: str, rows: int) -> Iterator[tuple[int, int, int, int]]:
        start = stop = count = 0
        with io.BufferedReader(self._files.open_input_stream(path, compression=None), READ_BYTES) as lines:
            for line in lines:
                stop += len(line)
                count += not line.isspace()
                if count == rows:
                    yield 0, start, stop, count
                    start, count = stop, 0
        if count:
            yield 0, start, stop, count

    def _parquet_pieces(self, path: str, rows: int) -> Iterator[tuple[int, int, int, int]]:
        metadata = self._parquet(path).metadata
        for group in range(metadata.num_row_groups):
            total = metadata.row_group(group).num_rows
            for start in range(0, total, rows):
                stop = min(start + rows, total)
                yield group, start, stop, stop - start

    def _json_rows(self, piece: Piece) -> Iterator[Row]:
        with self._files.open_input_file(piece.path) as file:
            data = file.read_at(piece.stop - piece.start, piece.start)
        lines = (line for line in io.BytesIO(data) if not line.isspace())
        return (json_row(number, line) for number, line in enumerate(lines, piece.first))

    def _parquet_rows(self, piece: Piece) -> Iterator[Row]:
        if self._group[:2] != (piece.path, piece.group):
            file = self._parquet(piece.path)
            columns = [name for name in file.schema_arrow.names if name in (*ITEM, "id")]
            self._group = piece.path, piece.group, file.read_row_group(piece.group, columns)
        table = self._group[2].slice(piece.start, piece.rows)
        return (Row(number, fields) for number, fields in enumerate(table.to_pylist(), piece.first))

    def _parquet(self, path: str) -> Any:
        pyarrow = import_pyarrow()
        try:
            return pyarrow.parquet.ParquetFile(self._files.open_input_file(path), pre_buffer=False)
        except pyarrow.ArrowInvalid:
            raise ConfigurationError(f"{path} is not a Parquet file") from None

    def id_type(self) -> Any:
        """Returns the type that ids have in a Parquet output; None without ids."""
        pyarrow = import_pyarrow()
        path = self.files()[0].path
        if not path.endswith(".parquet"):
            return pyarrow.string()
        schema = self._parquet(path).schema_arrow
        if "id" not in schema.names:
            return None
        kind = schema.field("id").type
        return kind if pyarrow.types.is_integer(kind) else pyarrow.string()


class _Images:
    """Reads images that score-file itself would look for on this machine's disk alone."""

    def __init__(self, files: Any, folder: str, is_local: bool) -> None:
        self._files = files
        self._folder = folder
        self._is_local = is_local
        self._last: tuple[str, bytes] = ("", b"")  # rows of one image follow each other

    def read(self, row: Row) -> Row:
        """Returns the row with its images as bytes where paths in storage name them. One that cannot be read stays a
        path, which is then the row's error."""
        fields = dict(row.fields or {})
        if fields.get("image") is not None:
            fields["image"] = self._image(fields["image"])
        if isinstance(fields.get("images"), list):
            fields["images"] = [self._image(image) for image in fields["images"]]
        return replace(row, fields=fields) if row.fields is not None else row

    def _image(self, image: Any) -> Any:
        path = image.get("path") if isinstance(image, Mapping) and not image.get("bytes") else image
        if not isinstance(path, str) or not 0 < len(path) < LONGEST_PATH or not self._is_stored(path):
            return image
        try:
            return self._read(path)
        except (OSError, ValueError):  # pyarrow's errors are kinds of these
            return image

    def _is_stored(self, path: str) -> bool:
        return "://" in path or not (self._is_local or (len(path) > 256 and BASE64.fullmatch(path)))

    def _read(self, path: str) -> bytes:
        if self._last[0] != path:
            files, place = open_place(path) if "://" in path else (self._files, f"{self._folder}/{path}")
            with files.open_input_stream(place, compression=None) as file:
                self._last = path, file.read()
        return self._last[1]


def open_place(place: str) -> tuple[Any, str]:
    """Returns the file system of a path or URI, and the path in it. Raises ConfigurationError for a URI that it cannot
    be had for."""
    import_pyarrow()
    from pyarrow import fs

    if "://" not in place:
        return fs.LocalFileSystem(), str(Path(place).absolute())
    try:
        files, path = fs.FileSystem.from_uri(place)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{place} cannot be opened: {error}") from None
    return files, path
