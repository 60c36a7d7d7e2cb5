"""The catalogue of archives, and downloads from a server on loopback that misbehaves as servers do."""

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from types import SimpleNamespace

import pooch
import pytest
import yaml

from lib import sources
from lib.sources import fetch, load_sources

CONTENT = bytes(range(256)) * 2000  # 512 kB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path; `requests` logs (path, Range header); its other attributes are bad manners."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = {}, []
        self.break_at, self.breaks, self.ranges, self.encoding, self.status = 0, 0, True, None, {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, path = self.server, self.path.lstrip("/")
        wanted = self.headers.get("Range")
        server.requests.append((path, wanted))
        status = server.status.get(path, 200 if path in server.files else 404)
        if status != 200:
            return self.send_error(status)
        body = server.files[path]
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        start = int(wanted[6:].rstrip("-")) if wanted and server.ranges and self.headers["If-Range"] == tag else 0
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        self.end_headers()
        stop = len(body)
        if server.breaks:
            server.breaks -= 1
            stop = max(start, server.break_at)
        self.wfile.write(body[start:stop])


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def catalogue(tmp_path, server):
    """write(file=..., **changes) -> path of a catalogue with one entry, served by `server` as x/<file>."""

    def write(content=CONTENT, file="data.h5", **changes):
        server.files[f"x/{file}"] = content
        entry = {
            "title": "T", "folder": "x", "file": file, "url": [f"{server.url}/x/{file}"], "release": "1",
            "sha256": None, "licence": "CC0", "citation": "C", "role": "tissue", "verified": True,
        }  # fmt: skip
        path = tmp_path / "sources.yaml"
        path.write_text(yaml.safe_dump({"one": {**entry, **changes}}))
        return path

    return write


def get(catalogue, to, **options):
    return fetch(["one"], to, catalogue=catalogue, wait=0.01, **options)["one"]


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- catalogue ----------------------------------------------------------------------------------------------


def test_catalogue_has_every_archive_of_both_papers():
    catalogue = load_sources()
    assert {s.role for s in catalogue.values()} == set(sources.ROLES)
    folders = {s.folder.split("/")[0] for s in catalogue.values()}
    needed = {
        "treehouse",
        "depmap",
        "celligner",
        "archs4",
        "gtex",
        "tcga",
        "target",
        "deposit",
        "checkpoints",
    }
    assert needed < folders
    assert all(s.licence and s.citation and s.release for s in catalogue.values())
    assert all(u.startswith("https://") for s in catalogue.values() for u in s.url)
    assert all(s.note for s in catalogue.values() if not s.verified)
    assert catalogue["archs4"].size == 47865298452


def test_demo_archives_have_the_places_of_the_real_ones():
    from lib import synthetic_archives

    places = {str(s.path("")) for s in load_sources().values()}
    demo = {v for v in vars(synthetic_archives).values() if isinstance(v, str) and v.count("/") == 1 and "." in v}
    assert len(demo) > 10 and demo <= places


def test_formats_and_units_are_those_of_the_readers():
    from lib.readers import FORMATS, UNITS

    for source in load_sources().values():
        assert source.format is None or (source.format in FORMATS and source.unit in UNITS), source.id


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"colour": "red"}, "unknown colour"),
        ({"role": "nothing"}, "role 'nothing'"),
        ({"sha256": "abc"}, "sha256 'abc'"),
        ({"file": "../../x"}, "inside the folder"),
        ({"verified": False}, "note"),
        ({"verified": "maybe"}, "yes or no"),
        ({"url": None}, "single way"),
        ({"url": None, "manual": True}, "page"),
        ({"size": "big"}, "size 'big'"),
    ],
)
def test_bad_entry_is_refused(catalogue, changes, words):
    path = catalogue(**changes)
    with pytest.raises(ValueError, match=words) as caught:
        load_sources(path)
    assert str(path) in str(caught.value) and "one" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_key_bad_yaml_and_no_file(tmp_path):
    (tmp_path / "a.yaml").write_text("one: {title: T}")
    with pytest.raises(ValueError, match="no folder, file"):
        load_sources(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("one: [")
    with pytest.raises(ValueError, match="invalid YAML"):
        load_sources(tmp_path / "a.yaml")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_sources(tmp_path / "b.yaml")


def test_select_by_id_and_role():
    catalogue = load_sources()
    assert [s.id for s in sources.select(["archs4"], catalogue)] == ["archs4"]
    assert {s.folder for s in sources.select(["cohort"], catalogue)} == {"target"}
    assert not any(s.manual for s in sources.select(None, catalogue))
    with pytest.raises(ValueError, match=r"'gencode'.*gencode_41"):
        sources.select(["gencode"], catalogue)


# --- downloads ----------------------------------------------------------------------------------------------


def test_fetch_writes_records_and_shows_the_licence(catalogue, server, tmp_path, capsys):
    path = get(catalogue(), tmp_path / "raw")
    assert path == tmp_path / "raw" / "x" / "data.h5" and path.read_bytes() == CONTENT
    assert sources.read_checksums(tmp_path / "raw") == {"x/data.h5": {"sha256": SHA256, "size": len(CONTENT)}}
    assert files_in(tmp_path / "raw") == ["checksums.json", "x/data.h5"]
    assert "CC0" in capsys.readouterr().out
    get(catalogue(), tmp_path / "raw")
    assert len(server.requests) == 1  # there already


def test_broken_download_goes_on_where_it_stopped(catalogue, server, tmp_path):
    server.break_at, server.breaks = 300_000, 1
    path = get(catalogue(sha256=SHA256), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [r for _, r in server.requests] == [None, "bytes=300000-"]


def test_next_run_goes_on_where_a_killed_one_stopped(catalogue, server, tmp_path):
    server.break_at, server.breaks = 100_000, 100
    with pytest.raises(OSError, match=r"broken connection at byte 100,000.*run again"):
        get(catalogue(), tmp_path / "raw")
    assert files_in(tmp_path / "raw") == ["x/data.h5.part", "x/data.h5.part.tag"]
    server.breaks, server.requests[:] = 0, []
    assert get(catalogue(), tmp_path / "raw").read_bytes() == CONTENT
    assert server.requests == [("x/data.h5", "bytes=100000-")]
    assert files_in(tmp_path / "raw") == ["checksums.json", "x/data.h5"]


@pytest.mark.parametrize("manner", ["new version", "no ranges"])
def test_download_starts_anew_when_it_can_not_go_on(catalogue, server, tmp_path, manner):
    server.break_at, server.breaks = 100_000, 100
    with pytest.raises(OSError):
        get(catalogue(), tmp_path / "raw")
    server.breaks, server.ranges = 0, manner == "new version"
    content = CONTENT[::-1] if manner == "new version" else CONTENT
    assert get(catalogue(content), tmp_path / "raw").read_bytes() == content


def test_complete_part_is_accepted(catalogue, server, tmp_path):
    part = tmp_path / "raw" / "x" / "data.h5.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    part.with_name("data.h5.part.tag").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    assert get(catalogue(sha256=SHA256), tmp_path / "raw").read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"hash": "sha1:" + "0" * 40}])
def test_wrong_checksum_is_refused_and_nothing_left(catalogue, tmp_path, known):
    with pytest.raises(ValueError, match=r"data\.h5: found checksum .* expected sha\d+:0000") as caught:
        get(catalogue(**known), tmp_path / "raw")
    assert "\n" not in str(caught.value) and files_in(tmp_path / "raw") == []


def test_published_sha1_is_checked_and_sha256_recorded(catalogue, tmp_path):
    get(catalogue(hash="sha1:" + hashlib.sha1(CONTENT).hexdigest()), tmp_path / "raw")
    assert sources.read_checksums(tmp_path / "raw")["x/data.h5"]["sha256"] == SHA256


def test_recorded_checksum_is_checked_at_the_next_download(catalogue, tmp_path):
    get(catalogue(), tmp_path / "raw").unlink()
    with pytest.raises(ValueError, match="found checksum"):
        get(catalogue(CONTENT[::-1]), tmp_path / "raw")


def test_web_page_is_refused_and_nothing_left(catalogue, tmp_path):
    with pytest.raises(ValueError, match=r"web page.*expected data\.h5"):
        get(catalogue(b"<!DOCTYPE html><html>Please log in</html>"), tmp_path / "raw")
    assert files_in(tmp_path / "raw") == []


def test_not_found_is_an_error_at_once_and_the_next_address_is_tried(catalogue, server, tmp_path):
    with pytest.raises(OSError, match="HTTP 404"):
        get(catalogue(url=[f"{server.url}/nothing"]), tmp_path / "raw")
    assert len(server.requests) == 1 and files_in(tmp_path / "raw") == []
    both = catalogue(url=[f"{server.url}/nothing", f"{server.url}/x/data.h5"])
    assert get(both, tmp_path / "raw").read_bytes() == CONTENT


def test_busy_server_is_asked_again(catalogue, server, tmp_path):
    server.status["x/data.h5"] = 503
    with pytest.raises(OSError, match="HTTP 503"):
        get(catalogue(), tmp_path / "raw")
    assert len(server.requests) == 5


def test_other_size_than_published_is_refused_before_the_transfer(catalogue, tmp_path):
    with pytest.raises(ValueError, match="found 512,000 bytes, expected 7"):
        get(catalogue(size=7), tmp_path / "raw")
    assert files_in(tmp_path / "raw") == []


def test_full_disk_is_found_before_anything_is_asked_for(catalogue, server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(OSError, match=r"found 0\.00 GB of free disk, expected at least 2\.00 GB"):
        get(catalogue(about=2_000_000_000), tmp_path / "raw")
    assert server.requests == []


def test_missing_bytes_counts_only_what_is_missing(catalogue, tmp_path):
    path = catalogue(size=len(CONTENT))
    one = list(load_sources(path).values())
    assert sources.missing_bytes(one, tmp_path / "raw") == len(CONTENT)
    (tmp_path / "raw" / "x").mkdir(parents=True)
    (tmp_path / "raw" / "x" / "data.h5.part").write_bytes(CONTENT[:1000])
    assert sources.missing_bytes(one, tmp_path / "raw") == len(CONTENT) - 1000
    get(path, tmp_path / "raw")
    assert sources.missing_bytes(one, tmp_path / "raw") == 0


def test_gzip_arrives_as_it_is_stored(catalogue, server, tmp_path):
    zipped = gzip.compress(CONTENT)
    server.encoding = "gzip"
    assert get(catalogue(zipped, "data.tsv.gz"), tmp_path / "raw").read_bytes() == zipped


def test_verify_replaces_a_damaged_file(catalogue, tmp_path):
    path = get(catalogue(), tmp_path / "raw")
    path.write_bytes(CONTENT[::-1])  # same size
    assert get(catalogue(), tmp_path / "raw").read_bytes() != CONTENT
    assert get(catalogue(), tmp_path / "raw", verify=True).read_bytes() == CONTENT


def test_tar_archive_is_unpacked(catalogue, tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "clin.csv").write_text("a")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(tmp_path / "data", "data")
    get(catalogue(buffer.getvalue(), "data.tar.gz", unpacked=1), tmp_path / "raw")
    assert files_in(tmp_path / "raw") == ["checksums.json", "x/data.tar.gz", "x/data/train/clin.csv"]


@pytest.mark.parametrize("content", [CONTENT, "outside"])
def test_bad_tar_archive_leaves_nothing_unpacked(catalogue, tmp_path, content):
    if content == "outside":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("../../evil"))
        content = buffer.getvalue()
    with pytest.raises(ValueError, match="no intact tar archive"):
        get(catalogue(content, "data.tar", unpacked=1), tmp_path / "raw")
    assert files_in(tmp_path) == ["sources.yaml"]


def test_mirror_serves_the_same_paths_with_its_own_checksums(catalogue, server, tmp_path):
    path = catalogue(url=["https://archive.invalid/data.h5"], sha256="0" * 64)
    with pytest.raises(ValueError, match="found checksum"):
        get(path, tmp_path / "raw", base_url=server.url)
    server.files["checksums.json"] = json.dumps({"x/data.h5": {"sha256": SHA256, "size": len(CONTENT)}}).encode()
    assert get(path, tmp_path / "raw", base_url=server.url).read_bytes() == CONTENT


def test_recorded_folder_can_serve_as_a_mirror(catalogue, tmp_path):
    (tmp_path / "raw" / "x").mkdir(parents=True)
    (tmp_path / "raw" / "x" / "data.h5").write_bytes(CONTENT)
    sources.record(tmp_path / "raw", catalogue())
    assert sources.read_checksums(tmp_path / "raw")["x/data.h5"]["sha256"] == SHA256


def test_what_a_person_has_to_download_says_from_where(catalogue, tmp_path):
    path = catalogue(url=None, manual=True, page="https://example.org/page")
    with pytest.raises(FileNotFoundError, match=r"x/data\.h5: found no such file.*https://example\.org/page"):
        get(path, tmp_path / "raw")


def test_doi_is_looked_up(catalogue, server, tmp_path, monkeypatch):
    record = SimpleNamespace(download_url=lambda file: f"{server.url}/x/{file}")
    monkeypatch.setattr(pooch.downloaders, "doi_to_repository", lambda doi: record)
    assert get(catalogue(url=None, doi="10.5281/zenodo.1"), tmp_path / "raw").read_bytes() == CONTENT


def test_command_line(catalogue, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sources.main(["--list"]) == 0 and "archs4" in capsys.readouterr().out
    assert sources.main(["--to", str(tmp_path), "nonsense"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ids: found 'nonsense'") and error.count("\n") == 1
