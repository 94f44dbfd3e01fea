"""Weight files in folders, listed by content. A cache of what headers say makes the second listing quick."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motion.checkpoints.file_formats import FILE_FORMATS
from motion.checkpoints.format_types import AnyFormat, CustomMotion, Kind
from motion.checkpoints.inspection import Inspection, inspect_file
from motion.errors import CheckpointError

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

_logger = logging.getLogger(__name__)
_CACHE_VERSION = 2


@dataclass(frozen=True)
class LibraryEntry:
    """One file of a library.

    Attributes:
        name: path below its folder, with forward slashes; what a drop-down shows.
        path: the file.
        inspection: what it is.
    """

    name: str
    path: Path
    inspection: Inspection


class ModelLibrary:
    """The weight files of some folders.

    Args:
        folders: where to look, subfolders included; missing ones are passed over.
        cache_path: file that keeps what headers said from one start to the next; None keeps it in this object only.
            It is only ever a shortcut: a missing, damaged or outdated one costs time.
        formats: the formats to choose from.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        cache_path: str | Path | None = None,
        formats: Sequence[AnyFormat] = FILE_FORMATS,
    ) -> None:
        self.folders = [Path(folder) for folder in folders]
        self._cache_path = None if cache_path is None else Path(cache_path)
        self._formats = formats
        # Reports depend on the known formats too: another set of them makes every old report worthless.
        sources = [known.source for known in formats if isinstance(known, CustomMotion)]
        self._edition = [_CACHE_VERSION, [known.id for known in formats], sources]
        self._reports: dict[str, _CachedReport] | None = None

    def entries(self, kinds: Collection[Kind] | None = None) -> list[LibraryEntry]:
        """The files now in the folders, by name; a file that was seen before and has not changed is not opened.

        Args:
            kinds: only files of these kinds; None lists every file.
        """
        if self._reports is None:
            self._reports = self._read_cache()
        known, current = self._reports, dict[str, _CachedReport]()
        entries = []
        for name, path in self._files():
            report = self._report(path, known.get(str(path)))
            if report is None:
                continue
            current[str(path)] = report
            if kinds is None or report.inspection.kind in kinds:
                entries.append(LibraryEntry(name, path, report.inspection))
        if current != known:
            self._reports = current
            self._write_cache()
        return sorted(entries, key=lambda entry: entry.name.lower())

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Name and path of every file with a weight file's suffix, each once, links followed but never in circles."""
        seen: set[str] = set()
        for folder in self.folders:
            for current, subfolders, files in os.walk(folder, followlinks=True):
                real = os.path.realpath(current)
                if real in seen:
                    subfolders.clear()
                    continue
                seen.add(real)
                for file in files:
                    if file.lower().endswith(SUFFIXES):
                        path = Path(current, file)
                        yield path.relative_to(folder).as_posix(), path

    def _report(self, path: Path, known: _CachedReport | None) -> _CachedReport | None:
        """The report on a file; None when it has just gone, or is a pipe or a device."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return None
            if known is not None and (known.mtime_ns, known.size) == (status.st_mtime_ns, status.st_size):
                return known
            return _CachedReport(status.st_mtime_ns, status.st_size, inspect_file(path, formats=self._formats))
        except (OSError, CheckpointError):
            return None

    def _read_cache(self) -> dict[str, _CachedReport]:
        if self._cache_path is None or not self._cache_path.is_file():
            return {}
        try:
            content = json.loads(self._cache_path.read_text(encoding="utf-8"))
            if content["edition"] != self._edition:
                return {}
            return {path: _CachedReport.from_json(report) for path, report in content["reports"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _logger.info("The list of model files in %s can't be used (%s); it is made anew.", self._cache_path, error)
            return {}

    def _write_cache(self) -> None:
        if self._cache_path is None or self._reports is None:
            return
        reports = {path: report.to_json() for path, report in self._reports.items()}
        content = json.dumps({"edition": self._edition, "reports": reports})
        # Written beside and renamed: another process reads either the old list or the new one.
        partial = self._cache_path.with_name(f"{self._cache_path.name}.{os.getpid()}.partial")
        try:
            self._cache_path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(content, encoding="utf-8")
            partial.replace(self._cache_path)
        except OSError as error:
            _logger.warning("The list of model files can't be kept in %s (%s).", self._cache_path, error)


@dataclass(frozen=True)
class _CachedReport:
    """A report, and by what to tell that its file has not changed since."""

    mtime_ns: int
    size: int
    inspection: Inspection

    def to_json(self) -> list[Any]:
        return [self.mtime_ns, self.size, dataclasses.asdict(self.inspection)]

    @classmethod
    def from_json(cls, content: list[Any]) -> _CachedReport:
        mtime_ns, size, fields = content
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(mtime_ns, size, Inspection(**values))
