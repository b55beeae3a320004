"""A small part of the Hugging Face Hub's API, as far as its own client needs it to upload and download files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """The state of the fake: what its repositories hold.

    Attributes:
        address: The value for HF_ENDPOINT.
        files: The files of each branch of each repository, by (repository, branch).
        private: Whether each repository is private.
        large: Contents that were uploaded outside of a commit, by SHA-256, as the real hub takes ONNX files.
        broken: A status that every request gets; 0: none.
        requests: Method and path of every request.
    """

    address: str = ""
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    broken: int = 0
    requests: list[str] = field(default_factory=list)

    def commit_of(self, repository: str, branch: str) -> str:
        """Return an id of the content of a branch."""
        return hashlib.sha1(repr(sorted(self.files[repository, branch].items())).encode()).hexdigest()

    def branch_of(self, repository: str, revision: str) -> str | None:
        """Return the branch that has a name or an id of its content."""
        branches = [branch for one, branch in self.files if one == repository]
        return next((one for one in branches if revision in (one, self.commit_of(repository, one))), None)


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """Run a fake of the hub on this machine."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  # the names that http.server calls

    def _answer(self) -> None:
        hub = self.state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        hub.requests.append(f"{self.command} {path}")
        match path.strip("/").split("/"):
            case _ if hub.broken:
                self._send(hub.broken, {"error": "broken"})
            case ["large", digest] if self.command == "PUT":
                hub.large[digest] = body
                self._send(200, {})
            case _ if self.command in ("POST", "PUT") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, {"error": "Invalid credentials"})
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._send(200, {"errors": [], "warnings": []})
            case ["api", "models", user, name, "branch", branch]:
                hub.files.setdefault((f"{user}/{name}", branch), dict(hub.files[f"{user}/{name}", "main"]))
                self._send(200, {})
            case ["api", "models", user, name, "preupload", _]:
                self._choose_transfers([file["path"] for file in json.loads(body)["files"]])
            case [user, name, "info", "lfs", "objects", "batch"]:
                self._large_files(json.loads(body))
            case ["api", "models", user, name, "commit", branch]:
                self._commit(f"{user}/{name}", branch, body)
            case ["api", "models", user, name, *rest]:
                self._describe(f"{user}/{name}", rest[1] if rest else "main")
            case [user, name, "resolve", revision, file]:
                self._file(f"{user}/{name}", revision, file)
            case _:
                self._send(404, {"error": "not found"})

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _create(self, wanted: dict[str, Any]) -> None:
        hub, repository = self.state, f"{wanted.get('organization', 'me')}/{wanted['name']}"
        known = repository in hub.private
        hub.private.setdefault(repository, wanted.get("private") or wanted.get("visibility") == "private")
        hub.files.setdefault((repository, "main"), {".gitattributes": b"*.onnx filter=lfs\n"})
        self._send(409 if known else 200, {"url": f"{hub.address}/{repository}", "name": repository})

    def _choose_transfers(self, paths: list[str]) -> None:
        modes = {path: "lfs" if path.endswith(".onnx") else "regular" for path in paths}
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._send(200, {"files": files})

    def _large_files(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.state.address}/large/{one['oid']}"}}}
            for one in wanted["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repository: str, branch: str, body: bytes) -> None:
        hub = self.state
        changed = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changed[value["path"]] = hub.large[value["oid"]]
        hub.files[repository, branch] |= changed
        commit = hub.commit_of(repository, branch)
        address = f"{hub.address}/{repository}/commit/{commit}"
        self._send(200, {"success": True, "commitUrl": address, "commitOid": commit})

    def _describe(self, repository: str, revision: str) -> None:
        hub = self.state
        branch = hub.branch_of(repository, revision)
        if (repository, "main") not in hub.files:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif branch is None:
            self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            names = [{"rfilename": name} for name in hub.files[repository, branch]]
            self._send(200, {"id": repository, "sha": hub.commit_of(repository, branch), "siblings": names})

    def _file(self, repository: str, revision: str, name: str) -> None:
        hub = self.state
        branch = hub.branch_of(repository, revision)
        data = hub.files[repository, branch].get(name) if branch else None
        if data is None:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        else:
            self._send(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": revision})
