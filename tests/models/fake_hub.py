"""A hub on this machine that answers huggingface_hub's requests as the real one does."""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = urlsplit(self.path).path.strip("/")
        self.server.requests.append(f"{self.command} {unquote(path)}")
        if self.server.refusal:
            status, code = self.server.refusal
            return self.fail(status, code)
        words = [unquote(word) for word in path.removeprefix("api/models/").split("/")]
        repository, rest = "/".join(words[:2]), words[2:] or ["revision", "main"]
        commits = self.server.repositories.get(repository)
        if commits is None:
            return self.fail(404, "RepoNotFound")
        kind, revision, *file = rest
        commit = commits[revision] if isinstance(commits.get(revision), str) else revision
        files = commits.get(commit)
        if files is None:
            return self.fail(404, "RevisionNotFound")
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self.answer(json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode())
        if kind == "tree":
            found = [
                {"type": "file", "path": name, "size": len(content), "oid": git_sha1(content)}
                for name, content in files.items()
            ]
            return self.answer(json.dumps(found).encode())
        content = files.get("/".join(file))
        if content is None:
            return self.fail(404, "EntryNotFound", {"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_sha1(content)}"'}
        if file[-1].endswith((".safetensors", ".bin")):  # which git-lfs has
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        return self.answer(content, headers)

    def do_HEAD(self):
        self.do_GET()

    def fail(self, status, code, headers=None):
        self.answer(b"", {"X-Error-Code": code, "X-Error-Message": "no", **(headers or {})}, status)

    def answer(self, content, headers=None, status=200):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def fake_hub(monkeypatch, cache: Path):
    """Gives a server with `repositories` {"owner/name": {"main": commit, commit: {file: content}}} and `requests`.

    Where its `refusal` is (status, code), it answers everything with that.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.repositories, server.requests, server.refusal = {}, [], None
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
