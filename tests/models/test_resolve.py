"""Names, URLs and the cache, against a server on this machine."""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner
from edm_files import network, pickled, snapshot

import restart_sampling.models.resolve as names
from restart_sampling.base.download import cache_folder, fetch
from restart_sampling.base.errors import InputError
from restart_sampling.cli.model import model as group
from restart_sampling.models.read_checkpoint import load_model
from restart_sampling.models.resolve import resolve

DATA = b"a model" * 1000


class Handler(BaseHTTPRequestHandler):
    """Answers by path: /good and below, /short cuts the body, /away redirects, /down redirects to plain http."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if len(self.server.requests) <= self.server.failures:
            self.send_error(503)
        elif self.path.startswith("/good"):
            body = self.server.files.get(self.path, DATA)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.server.seen()
            self.wfile.write(body)
        elif self.path == "/short.pkl":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(DATA)
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.files, server.failures, server.seen = [], {}, 0, lambda: None
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)  # between tries
    return folder


def refusal(source):
    with pytest.raises(InputError) as caught:
        resolve(source)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_second_use_needs_no_network(server, cache, capsys):
    path = resolve(f"{server.url}/good/model.pkl")
    assert path.read_bytes() == DATA
    assert (path.parent, path.name[12:]) == (cache, "-model.pkl")
    digest = hashlib.sha256(DATA).hexdigest()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert digest in printed.err
    assert printed.err.count("\n") == 1

    assert resolve(f"{server.url}/good/model.pkl") == path
    assert server.requests == ["/good/model.pkl"]
    assert capsys.readouterr().err == ""
    assert json.loads((cache / "sha256.json").read_text()) == {path.name: digest}
    assert sorted(cache.iterdir()) == sorted([path, cache / "sha256.json"])


def test_urls_with_the_same_last_part_do_not_collide(server):
    server.files["/good/b/model.pkl"] = b"other"
    a, b = (resolve(f"{server.url}/good/{folder}/model.pkl") for folder in "ab")
    assert (a.read_bytes(), b.read_bytes()) == (DATA, b"other")


def test_changed_file_is_refused(server, cache):
    url = f"{server.url}/good/model.pkl"
    path = resolve(url)
    path.write_bytes(b"changed")
    message = refusal(url)
    for digest in (DATA, b"changed"):
        assert hashlib.sha256(digest).hexdigest() in message
    assert str(cache / "sha256.json") in message

    path.unlink()  # what is downloaded again is compared as well
    server.files["/good/model.pkl"] = b"changed on the server"
    assert "has changed" in refusal(url)

    path.unlink()
    (cache / "sha256.json").write_text("{}")
    assert resolve(url).read_bytes() == b"changed on the server"


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_damaged_hashes(text, server, cache):
    resolve(f"{server.url}/good/model.pkl")
    (cache / "sha256.json").write_bytes(text.encode("latin1"))
    assert "delete that file" in refusal(f"{server.url}/good/model.pkl")


def test_a_known_hash_and_a_second_try(server, cache):
    """What is downloaded counts only with its hash, and a server that fails at first is asked again."""
    server.failures = 2
    digest = hashlib.sha256(DATA).hexdigest()
    assert fetch(f"{server.url}/good/a.pkl", sha256=digest).read_bytes() == DATA
    assert server.requests == ["/good/a.pkl"] * 3
    with pytest.raises(InputError, match=r"b\.pkl could not be downloaded .*SHA256 hash"):
        fetch(f"{server.url}/good/b.pkl", sha256="0" * 64)
    assert [path.name[12:] for path in cache.iterdir()] == ["-a.pkl"]


@pytest.mark.parametrize(
    ("body", "reason"), [(b"", "is empty"), (b"<!doctype html><title>Quota", "is a web page"), (b" \n", "is empty")]
)
def test_what_is_no_file_is_not_kept(body, reason, server, cache):
    server.files["/good/model.pkl"] = body
    assert reason in refusal(f"{server.url}/good/model.pkl")
    assert not cache.exists() or not [*cache.iterdir()]
    server.files["/good/model.pkl"] = DATA
    assert resolve(f"{server.url}/good/model.pkl").read_bytes() == DATA


def test_a_home_that_nobody_has_is_one_sentence(monkeypatch):
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", "~nobody-of-this-name/cache")
    for name in ("edm-cifar10-32x32-uncond-vp", "pfgmpp-cifar10-32x32-uncond-2048"):
        assert "RESTART_SAMPLING_CACHE is ~nobody-of-this-name/cache, which is nobody's home" in refusal(name)


@pytest.mark.parametrize(("path", "reason"), [("/none.pkl", "404"), ("/short.pkl", "IncompleteRead")])
def test_failed_downloads_leave_nothing(path, reason, server, cache):
    message = refusal(server.url + path)
    assert f"{server.url}{path} could not be downloaded" in message
    assert reason in message
    assert list(cache.iterdir()) == []


def test_the_next_download_removes_what_a_killed_one_left(server, cache):
    """Each is in a folder of the file's own while it lasts."""
    url, there = f"{server.url}/good/model.pkl", []
    server.seen = lambda: there.extend(path.relative_to(cache) for path in cache.rglob("*") if path.is_file())
    path = fetch(url)
    lock, part = sorted(there, key=lambda each: len(each.parts))
    assert lock == Path(f".{path.name}.lock.partial")
    assert re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.partial", part.parts[0])
    path.unlink()
    (cache / part).parent.mkdir()
    (cache / part).write_bytes(b"half")
    (cache / lock).touch()
    (cache / ".other.pkl.0123456789abcdef.partial").touch()  # of a file that another process may be downloading
    fetch(url)
    assert {each.name for each in cache.iterdir()} == {
        path.name,
        ".other.pkl.0123456789abcdef.partial",
        "sha256.json",
    }


def test_two_that_need_the_same_download_it_once(server, cache):
    url = f"{server.url}/good/model.pkl"
    with ThreadPoolExecutor(2) as both:
        paths = [*both.map(fetch, [url] * 2)]
    assert paths[0] == paths[1]
    assert len(server.requests) == 1


def test_no_server(server, cache):
    server.shutdown()
    server.server_close()
    assert "could not be downloaded" in refusal(f"{server.url}/good/model.pkl")
    assert list(cache.iterdir()) == []


def test_redirects(server, cache):
    assert resolve(f"{server.url}/to/{server.url}/good/model.pkl").read_bytes() == DATA
    count = len(list(cache.iterdir()))
    assert "http://example.invalid/model.pkl" in refusal(f"{server.url}/to/http://example.invalid/model.pkl")
    assert len(list(cache.iterdir())) == count


def test_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", str(tmp_path / "file" / "cache"))
    assert "cannot be written (Not a directory)" in refusal(f"{server.url}/good/model.pkl")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.invalid/model.pkl",
        "http://127.0.0.1.example.invalid/model.pkl",
        "http://127.0.0.1@example.invalid/model.pkl",
        "http://10.0.0.1/model.pkl",
        "ftp://example.invalid/model.pkl",
        "file:///etc/passwd",
        "https:///model.pkl",
    ],
)
def test_refused_urls(url, cache):
    assert "has to be an https:// URL" in refusal(url)
    assert not cache.exists()


def test_urls_that_are_none():
    assert "is not a URL" in refusal("https://[::1/model.pkl")


def test_what_is_private_is_not_repeated(server):
    url = server.url.replace("//", "//user:password@") + "/none.pkl?token=secret"
    message = refusal(url)
    assert "password" not in message
    assert "secret" not in message


def test_published_names(server, monkeypatch):
    server.files["/good/edm.pkl"] = pickled(snapshot(network("vp_ddpmpp")))
    monkeypatch.setitem(names.PUBLISHED, "edm-cifar10-32x32-uncond-vp", f"{server.url}/good/edm.pkl")
    assert load_model("edm-cifar10-32x32-uncond-vp").resolution == 16
    assert resolve("edm-cifar10-32x32-uncond-vp").name == "edm-cifar10-32x32-uncond-vp.pkl"
    result = CliRunner().invoke(group, ["inspect", "edm-cifar10-32x32-uncond-vp"])
    assert "VPPrecond" in result.output


def test_published_urls():
    assert {name: url.rpartition("/")[2] for name, url in names.PUBLISHED.items()} == {
        name: f"{name}.pkl" for name in names.PUBLISHED
    }
    assert all(url.startswith("https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/") for url in names.PUBLISHED.values())


def test_files_that_only_a_browser_can_fetch(cache, capsys):
    message = refusal("pfgmpp-cifar10-32x32-uncond-2048")
    path = cache / "pfgmpp-cifar10-32x32-uncond-2048.pt"
    assert "https://drive.google.com/drive/folders/" in message
    assert str(path) in message
    cache.mkdir()
    path.write_bytes(DATA)
    assert resolve("pfgmpp-cifar10-32x32-uncond-2048") == path
    assert hashlib.sha256(DATA).hexdigest() in capsys.readouterr().err


def test_paths(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.write_bytes(DATA)
    assert resolve(path) == resolve(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert resolve("model").samefile(path)
    for missing in (tmp_path / "none.pkl", str(tmp_path / "none"), "none.pt", tmp_path):
        assert "is not a file" in refusal(missing)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cifar10-smal", "nearest: cifar10-small"),
        ("edm-cifar10-32x32-cond-vp", "nearest: edm-cifar10-32x32-uncond-vp"),
        ("qqqq", "cifar10-pfgmpp-small, baseline-cifar10-32x32-uncond-vp, edm-cifar10"),
    ],
)
def test_unknown_names(name, nearest):
    message = refusal(name)
    assert nearest in message
    assert "https:// URL" in message
    assert ".safetensors, .pkl, .pt" in message


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("RESTART_SAMPLING_CACHE")
    assert "restart-sampling" in str(cache_folder())
