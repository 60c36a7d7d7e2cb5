"""The public archives of both papers: data/sources.yaml -> verified files on disk.

`./run_all.sh fetch --to DIR [IDS]` downloads them as DIR/<folder>/<file>: free disk is checked first, the
licence is shown, a broken download goes on where it stopped (also after a kill), and a file gets its name
only when its checksum is right. A folder fetched on one machine, or written by the demo generator, can serve
others: `--base-url` takes the same paths.
"""

import argparse
import difflib
import json
import os
import re
import shutil
import sys
import tarfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pooch
import requests
import urllib3
import yaml
from tqdm import tqdm

from lib.files import replacing

CATALOGUE = Path(__file__).parents[1] / "data" / "sources.yaml"
CHECKSUMS = "checksums.json"  # sha256 and size of what was downloaded, beside the files
ROLES = ("alignment", "tissue", "cohort", "deposit", "annotation", "checkpoint", "application")
CHUNK = 1 << 20
TIMEOUT = 60
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
TRANSIENT = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


@dataclass(frozen=True)
class Source:
    """One archive file. Where it is: `url`, or `doi`, or `manual`, a person has to get it from `page`."""

    id: str
    title: str
    folder: str
    file: str
    release: str
    licence: str
    citation: str
    role: str
    verified: bool
    sha256: str | None = None
    hash: str | None = None
    size: int | None = None
    about: int | None = None
    unpacked: int | None = None
    url: tuple[str, ...] = ()
    doi: str | None = None
    manual: bool = False
    page: str | None = None
    format: str | None = None
    unit: str | None = None
    note: str = ""

    def path(self, root: str | Path) -> Path:
        return Path(root) / self.folder / self.file

    @property
    def bytes(self) -> int:
        """Size for the disk check: published, else estimated, else 0."""
        return self.size or self.about or 0


def load_sources(path: str | Path = CATALOGUE) -> dict[str, Source]:
    """The catalogue by id; ValueError naming file, id and key for what is unknown, missing or impossible."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected the catalogue of archives")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as problem:
        raise ValueError(
            f"{path}: found invalid YAML ({' '.join(str(problem).split())}), expected entries by id"
        ) from None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ValueError(f"{path}: found {type(entries).__name__}, expected entries by id")
    sources = {id: _source(f"{path}: {id}", id, entry) for id, entry in entries.items()}
    places = [s.path("") for s in sources.values()]
    twice = {str(p) for p in places if places.count(p) > 1}
    if twice:
        raise ValueError(f"{path}: found {', '.join(sorted(twice))} in two entries, expected one entry per file")
    return sources


def _source(where: str, id: str, entry: dict) -> Source:
    fields = Source.__dataclass_fields__
    unknown = sorted(set(entry) - set(fields))
    required = ("title", "folder", "file", "release", "licence", "citation", "role", "verified", "sha256")
    missing = [name for name in required if name not in entry]
    if unknown or missing:
        found = f"unknown {', '.join(unknown)}" if unknown else f"no {', '.join(missing)}"
        raise ValueError(f"{where}: found {found}, expected the keys {', '.join(k for k in fields if k != 'id')}")
    source = Source(id=id, **{**entry, "url": tuple(entry.get("url") or ())})
    ways = bool(source.url) + bool(source.doi) + bool(source.manual)
    problems = {
        f"role {source.role!r}, expected one of {', '.join(ROLES)}": source.role not in ROLES,
        "no single way to get it, expected one of url, doi, manual": ways != 1,
        "manual without page, expected the page to download from": source.manual and not source.page,
        f"verified {source.verified!r}, expected yes or no": not isinstance(source.verified, bool),
        "verified: no without a note, expected the reason": source.verified is False and not source.note,
        f"size {source.size!r}, expected bytes": not isinstance(source.size, int | None),
        f"sha256 {source.sha256!r}, expected 64 hexadecimal digits": not _is_hex(source.sha256, 64),
        f"path {source.path('')}, expected one inside the folder": source.path("").is_absolute()
        or ".." in source.path("").parts,
    }
    for problem, is_there in problems.items():
        if is_there:
            raise ValueError(f"{where}: found {problem}")
    return source


def _is_hex(value, length: int) -> bool:
    return value is None or (isinstance(value, str) and len(value) == length and set(value) <= set("0123456789abcdef"))


def select(ids, sources: dict[str, Source]) -> list[Source]:
    """The sources of `ids` (ids or roles, None: all that need no person); ValueError for an unknown one."""
    if not ids:
        return [s for s in sources.values() if not s.manual]
    for unknown in (i for i in ids if i not in sources and i not in ROLES):
        near = difflib.get_close_matches(unknown, [*sources, *ROLES], n=3, cutoff=0.4) or ROLES
        raise ValueError(f"ids: found {unknown!r}, expected an id or role such as {', '.join(near)} (--list shows all)")
    return [s for s in sources.values() if s.id in ids or s.role in ids]


def is_web_page(start: bytes) -> bool:
    """Whether a file's first bytes are those of an HTML (or XML error) page."""
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].lower()
    return start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body"))


# --- what is there, what is missing -------------------------------------------------------------------------


def read_checksums(root: str | Path) -> dict[str, dict]:
    """{"<folder>/<file>": {"sha256": ..., "size": ...}} of what was downloaded to `root`."""
    path = Path(root) / CHECKSUMS
    return json.loads(path.read_text()) if path.is_file() else {}


def _record_checksum(root: Path, source: Source, sha256: str) -> None:
    checksums = read_checksums(root)
    checksums[str(source.path(""))] = {"sha256": sha256, "size": source.path(root).stat().st_size}
    with replacing(root / CHECKSUMS) as temporary:
        temporary.write_text(json.dumps(checksums, indent=1, sort_keys=True) + "\n")


def is_complete(source: Source, root: str | Path) -> bool:
    """Whether the file is there, with the size it had when its checksum was verified."""
    path = source.path(root)
    known = read_checksums(root).get(str(source.path("")))
    return path.is_file() and known is not None and known["size"] == path.stat().st_size


def missing_bytes(selected: list[Source], root: str | Path) -> int:
    """Disk needed for what is missing, by published or estimated size, less the parts that are there."""
    missing = [s for s in selected if not s.manual and not s.path(root).is_file()]
    parts = {s.id: _part(s, root).stat().st_size if _part(s, root).is_file() else 0 for s in missing}
    return sum(max(0, s.bytes - parts[s.id]) + (s.unpacked or 0) for s in missing)


def _part(source: Source, root: str | Path) -> Path:
    path = source.path(root)
    return path.with_name(path.name + ".part")


def _check_disk(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        found, expected = f"{free / 1e9:.2f} GB of free disk", f"at least {needed / 1e9:.2f} GB for {what}"
        raise OSError(f"{folder}: found {found}, expected {expected}")


# --- download -----------------------------------------------------------------------------------------------


def fetch(ids=None, to="data/raw", base_url=None, verify=False, catalogue=CATALOGUE, wait=2.0) -> dict[str, Path]:
    """Downloads the sources of `ids` (ids or roles; None: all that need no person) to `to`; returns paths by
    id.

    base_url: a server of a folder like `to`, used instead of the archives; its checksums.json, where it has
    one, says what to expect. verify: hash again what is there already. wait: seconds before the first retry,
    doubled each time. Raises in one line OSError (disk, network, HTTP status), FileNotFoundError (to be
    downloaded by hand) and ValueError (a web page, another size or checksum than expected). What a broken
    download left stays as <file>.part and is continued by the next call; what has a wrong checksum is
    deleted.
    """
    root = Path(to)
    root.mkdir(parents=True, exist_ok=True)
    selected = select(ids, load_sources(catalogue))
    mirror = _mirror_checksums(base_url) if base_url else {}
    if not base_url:  # a mirror may serve other data; each of its files is checked against the disk on its own
        _check_disk(root, missing_bytes(selected, root), f"{len(selected)} files")
    pooch.get_logger().setLevel("WARNING")  # its hint to paste a hash somewhere is not for our readers
    for source in selected:
        if is_complete(source, root) and (not verify or _still_intact(source, root)):
            print(f"{source.id}: there already ({source.path(root)})")
        elif base_url or not source.manual:
            _fetch_one(source, root, base_url, mirror.get(str(source.path("")), {}), wait)
        elif not source.path(root).is_file():
            raise FileNotFoundError(
                f"{source.path(root)}: found no such file, expected it downloaded by hand from {source.page}"
            )
    return {source.id: source.path(root) for source in selected}


def record(root: str | Path, catalogue=CATALOGUE) -> None:
    """Hashes the catalogue's files in `root` into its checksums.json (those got by hand, or for a mirror)."""
    for source in load_sources(catalogue).values():
        if source.path(root).is_file():
            _record_checksum(Path(root), source, pooch.file_hash(str(source.path(root))))


def _fetch_one(source: Source, root: Path, base_url: str | None, mirror: dict, wait: float) -> None:
    path = source.path(root)
    print(f"{source.id}: {source.title}\n  licence: {source.licence}\n  cite: {source.citation}")
    sha256 = mirror.get("sha256") or source.sha256 or read_checksums(root).get(str(source.path("")), {}).get("sha256")
    known = f"sha256:{sha256}" if sha256 else source.hash
    problem = None
    for url in _urls(source, base_url):
        download = ResumingDownload(path, mirror.get("size") or source.size, wait)
        try:
            pooch.retrieve(url, known, path.name, path.parent, downloader=download)
            if source.unpacked:
                _unpack(path, source.unpacked)
            return _record_checksum(root, source, pooch.file_hash(str(path)))
        except (OSError, ValueError) as error:  # the next address may do better
            problem = _one_line(error, path)
    raise problem


def _urls(source: Source, base_url: str | None) -> list[str]:
    if base_url:
        return [f"{base_url.rstrip('/')}/{quote(f'{source.folder}/{source.file}')}"]
    if source.url:
        return list(source.url)
    try:
        return [pooch.downloaders.doi_to_repository(f"doi:{source.doi}").download_url(source.file)]
    except (OSError, ValueError) as error:
        raise type(error)(
            f"{source.id}: found {' '.join(str(error).split())}, expected {source.file} in doi:{source.doi}"
        ) from None


def _unpack(path: Path, size: int) -> None:
    """x.tar.gz -> x/, through a temporary name; members can't leave the folder (tarfile's data filter)."""
    target = path.with_name(path.name.removesuffix(".gz").removesuffix(".tar"))
    temporary = path.with_name(path.name + ".unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    _check_disk(path.parent, size, f"unpacking {path.name}")
    try:
        with tarfile.open(path) as archive:
            archive.extractall(temporary, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        path.unlink()
        raise ValueError(f"{path}: found no intact tar archive ({problem}), expected one; deleted") from None
    inner = temporary / target.name  # most archives hold one folder of their own name
    shutil.rmtree(target, ignore_errors=True)
    os.replace(inner if inner.is_dir() else temporary, target)
    shutil.rmtree(temporary, ignore_errors=True)


def _mirror_checksums(base_url: str) -> dict[str, dict]:
    answer = requests.get(f"{base_url.rstrip('/')}/{CHECKSUMS}", timeout=TIMEOUT)
    return answer.json() if answer.ok else {}


def _one_line(error: Exception, path: Path) -> Exception:
    """pooch's own checksum message, in the form of all others; other errors as they are."""
    wrong = re.search(r"expected (\S+) but got (\S+?)\. Deleted", str(error))
    return ValueError(f"{path}: found checksum {wrong[2]}, expected {wrong[1]}; deleted") if wrong else error


def _still_intact(source: Source, root: Path) -> bool:
    """Whether the file has its recorded checksum still; if not, it is removed."""
    expected = read_checksums(root)[str(source.path(""))]["sha256"]
    if pooch.file_hash(str(source.path(root))) == expected:
        return True
    source.path(root).unlink()
    return False


class ResumingDownload:
    """A pooch downloader that goes on where the last one stopped, in this run or an earlier one.

    Bytes collect in <file>.part, the server's ETag or date in <file>.part.tag: If a server has another
    version by now, or can't send ranges, the download starts anew. Tries again `tries` times without
    progress.
    """

    def __init__(self, path: Path, size: int | None = None, wait: float = 2.0, tries: int = 5):
        self.part, self.tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.tag")
        self.size, self.wait, self.tries = size, wait, tries

    def __call__(self, url: str, output_file: str, pooch, check_only: bool = False) -> None:
        failures, wait, there = 0, self.wait, -1
        while True:
            try:
                self._transfer(url)
                break
            except TRANSIENT as error:
                now = self._there()
                failures = 1 if now > there else failures + 1
                there = now
                if failures >= self.tries:
                    reason = " ".join(str(error).split())
                    found = f"a broken connection at byte {now:,} ({reason})"
                    raise OSError(f"{url}: found {found}, expected the whole file; run again to continue") from None
                time.sleep(wait * 2 ** (failures - 1))
        self.tag.unlink(missing_ok=True)
        os.replace(self.part, output_file)

    def _there(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _transfer(self, url: str) -> None:
        start = self._there()
        headers = {"Accept-Encoding": "identity"}  # a .gz is to arrive as it is stored
        if start and self.tag.is_file():
            headers |= {"Range": f"bytes={start}-", "If-Range": self.tag.read_text()}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code in RETRY_STATUS:
                raise requests.ConnectionError(f"HTTP {answer.status_code}")
            if answer.status_code == 416:  # nothing after `start`: the part is whole, or from another version
                return self._accept_or_restart(url, answer, start)
            if not answer.ok:
                raise OSError(f"{url}: found HTTP {answer.status_code} {answer.reason}, expected the file")
            start = start if answer.status_code == 206 else 0
            total = start + int(answer.headers.get("Content-Length", -1 - start))
            self._refuse_other_size(url, total)
            _check_disk(self.part.parent, max(0, total - start), self.part.stem)
            self.tag.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
            if not self.tag.read_text() or answer.headers.get("Accept-Ranges") == "none":
                self.tag.unlink()
            self._write(url, answer, start, total)

    def _accept_or_restart(self, url: str, answer: requests.Response, start: int) -> None:
        if answer.headers.get("Content-Range", "").endswith(f"/{start}"):
            return
        self.part.unlink()
        raise requests.ConnectionError("another version of the file")

    def _refuse_other_size(self, url: str, total: int) -> None:
        if self.size and total > 0 and total != self.size:
            raise ValueError(f"{url}: found {total:,} bytes, expected {self.size:,}")

    def _write(self, url: str, answer: requests.Response, start: int, total: int) -> None:
        name = self.part.stem
        bar = tqdm(total=max(total, 0) or None, initial=start, unit="B", unit_scale=True, desc=name, leave=False)
        with bar, open(self.part, "ab" if start else "wb") as file:
            for chunk in answer.raw.stream(CHUNK, decode_content=False):
                if file.tell() == 0 and is_web_page(chunk[:512]):
                    file.close()
                    self.part.unlink()
                    self.tag.unlink(missing_ok=True)
                    raise ValueError(f"{url}: found a web page (HTML), expected {name}")
                file.write(chunk)
                bar.update(len(chunk))
        if total > 0 and self._there() != total:
            raise requests.ConnectionError(f"{self._there():,} of {total:,} bytes")


# --- command line -------------------------------------------------------------------------------------------


def table(root: str | Path, catalogue=CATALOGUE) -> str:
    """One line per source: id, role, size, licence, whether it is in `root`."""
    lines = [f"{'id':30} {'role':11} {'GB':>7}  {'state':10} release"]
    for s in load_sources(catalogue).values():
        states = {"there": s.path(root).is_file(), "by hand": s.manual, "part": _part(s, root).is_file()}
        state = next((name for name, is_so in states.items() if is_so), "missing")
        size = f"{'' if s.size else '~'}{s.bytes / 1e9:.2f}"
        doubt = "" if s.verified else "  (address not verified)"
        lines.append(f"{s.id:30} {s.role:11} {size:>7}  {state:10} {s.release}{doubt}")
    return "\n".join(lines)


def main(arguments: list[str], default: list[str] | None = None) -> int:
    """The command line of `./run_all.sh fetch`; without ids it downloads `default`. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./run_all.sh fetch", description="Downloads the public archives of both papers."
    )
    parser.add_argument(
        "ids", nargs="*", help=f"ids or roles ({', '.join(ROLES)}); default: what --profile paper reads"
    )
    parser.add_argument("--to", default="data/raw", help="folder to download to (default: data/raw)")
    parser.add_argument("--base-url", help="server of a folder fetched before, used instead of the archives")
    parser.add_argument("--verify", action="store_true", help="hash again what is there already")
    parser.add_argument("--record", action="store_true", help="only record the checksums of what is there already")
    parser.add_argument("--list", action="store_true", help="only list the archives")
    args = parser.parse_args(arguments)
    try:
        if args.list:
            print(table(args.to))
        elif args.record:
            record(args.to)
        else:
            fetch(args.ids or default, args.to, args.base_url, args.verify)
    except (OSError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0
