"""A server on this machine that speaks the hub's protocol as far as pushing and loading datasets.

Files are kept in memory as one commit after another; there is one branch, `main`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import serving

TOKEN = "hf_test_token"


class Hub(ThreadingHTTPServer):
    """The server, with what it was given.

    Attributes:
        files: of each repository, by path.
        private: of each repository.
        uploads: objects that were uploaded beside a commit, by their SHA-256.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.uploads: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(self.commits).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep the output of tests free of requests."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.server.requests.append(f"{self.command} {path}")
        if path.startswith("/uploads/"):
            self.server.uploads[path.removeprefix("/uploads/")] = body
            return self._send(200, b"")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, b"{}", {"X-Error-Message": "Invalid username or password."})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._send_json({"errors": [], "warnings": []})
        api = re.fullmatch(r"/(?:api/)?datasets/([\w.-]+/[\w.-]+)(?:/(.*))?", path)
        if api and api[1] in self.server.files:
            return self._answer_repository(api[1], api[2] or "", body, parse_qs(url.query))
        git = re.fullmatch(r"/datasets/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", path)
        if git:
            return self._batch(json.loads(body))
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        self.server.files.setdefault(name, {})
        self.server.private[name] = wanted.get("visibility") == "private" or bool(
            wanted.get("private")
        )
        self._send_json({"url": f"{self.server.url}/datasets/{name}", "id": name})

    def _answer_repository(
        self, name: str, rest: str, body: bytes, query: dict[str, list[str]]
    ) -> None:
        files = self.server.files[name]
        verb, _, target = rest.partition("/")
        if verb in ("", "revision"):
            siblings = [{"rfilename": path} for path in files]
            self._send_json(
                {
                    "id": name,
                    "sha": self.server.sha,
                    "private": self.server.private[name],
                    "siblings": siblings,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "lastModified": "2026-01-01T00:00:00.000Z",
                    "createdAt": "2026-01-01T00:00:00.000Z",
                }
            )
        elif verb == "preupload":
            # Text goes into the commit, everything else beside it, as on the hub.
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".parquet") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._send_json({"files": modes})
        elif verb == "tree":
            folder = target.partition("/")[2]
            entries = _list_tree(files, folder, query.get("recursive") == ["true"])
            if folder and not entries:
                return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            self._send_json(entries)
        elif verb == "paths-info":
            wanted = (
                json.loads(body)["paths"]
                if body.startswith(b"{")
                else parse_qs(body.decode())["paths"]
            )
            self._send_json([_describe(path, files[path]) for path in wanted if path in files])
        elif verb == "commit":
            self._commit(name, body)
        elif verb == "resolve":
            self._resolve(files, target.partition("/")[2])
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {
                **item,
                "actions": {"upload": {"href": f"{self.server.url}/uploads/{item['oid']}"}},
            }
            for item in wanted["objects"]
        ]
        self._send_json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        files = self.server.files[name]
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                self.server.commits.append(value["summary"])
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.uploads[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(operation["key"])
        url = f"{self.server.url}/datasets/{name}/commit/{self.server.sha}"
        self._send_json({"commitUrl": url, "commitOid": self.server.sha, "success": True})

    def _resolve(self, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = files[path]
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.sha}
        return self._send(200, content, headers)

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _describe(path: str, content: bytes) -> dict[str, Any]:
    return {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }


def _list_tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, content in files.items():
        if not path.startswith(prefix):
            continue
        name, slash, _ = path.removeprefix(prefix).partition("/")
        if slash:
            entries[prefix + name] = {
                "type": "directory",
                "path": prefix + name,
                "oid": "0" * 40,
                "size": 0,
            }
        if recursive or not slash:
            entries[path] = _describe(path, content)
    return list(entries.values())


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """A hub that serves until the end of the block."""
    with serving(Hub()) as hub:
        yield hub
