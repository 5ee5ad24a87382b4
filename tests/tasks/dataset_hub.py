"""A dataset hub on the loopback interface: enough of its API for the real client."""

from __future__ import annotations

import hashlib
import http.server
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopback import LoopbackServer, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_dataset(folder: Path) -> Iterator[str]:
    """Serve the files of a folder as every dataset's files; yields the endpoint."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(has_body=False)

        def do_GET(self) -> None:
            self.answer(has_body=True)

        def answer(self, has_body: bool) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/datasets/"):
                names = sorted(
                    file.relative_to(folder).as_posix()
                    for file in folder.rglob("*")
                    if file.is_file()
                )
                facts: Any = {
                    "id": "owner/name",
                    "sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in names],
                }
                if "/tree/" in path:
                    facts = [
                        {
                            "type": "file",
                            "path": name,
                            "size": (folder / name).stat().st_size,
                            "oid": hashlib.sha1((folder / name).read_bytes()).hexdigest(),
                        }
                        for name in names
                    ]
                self.send(json.dumps(facts).encode(), "application/json", has_body)
                return
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            file = folder / name
            if not name or not file.is_file():
                self.send_error(404)
                return
            self.send(file.read_bytes(), "application/octet-stream", has_body)

        def send(self, content: bytes, kind: str, has_body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if has_body:
                self.wfile.write(content)

    with serving(LoopbackServer(Handler)) as server:
        yield server.url
