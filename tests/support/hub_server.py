"""A stand-in for the Hugging Face hub: as much of it as one commit to a model repository needs.

Keeps what arrives, so that a test can read it: repositories, files of the commit by their paths,
and the token of each request. `refusals` gives the status of the next answers to a kind of request.
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_Zq3kW7vYtB1xNc5mRp9sLdFg2hJ4aUeIo"
OID = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Context manager: serves on a free port of this host."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: list[str] = []
        self.refusals: dict[str, list[int]] = {"create": [], "commit": []}
        self.large: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refused(self, kind: str) -> bool:
        if not self.hub.refusals[kind]:
            return False
        status = self.hub.refusals[kind].pop(0)
        # as a careless server would: it quotes the request
        self._answer({"error": f"refused {self.headers['Authorization']}"}, status)
        return True

    def do_GET(self) -> None:
        repository = self.path.removeprefix("/api/models/")
        if repository not in self.hub.private:
            self._answer({"error": "Repository not found"}, 404)
            return
        private = self.hub.private[repository]
        self._answer({"id": repository, "private": private, "sha": OID, "siblings": [], "tags": []})

    def do_PUT(self) -> None:
        self.hub.large[self.path.removeprefix("/upload/")] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        self.hub.tokens.append(self.headers["Authorization"].removeprefix("Bearer "))
        if self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            found = [_mode(file["path"]) for file in json.loads(body)["files"]]
            self._answer({"files": found})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": self._actions(json.loads(body))})
        else:
            self._commit([json.loads(line) for line in body.splitlines()])

    def _create(self, wanted: dict[str, Any]) -> None:
        if self._refused("create"):
            return
        name = f"{wanted.get('organization') or 'jane'}/{wanted['name']}"
        if name in self.hub.private:
            self._answer({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
            return
        self.hub.private[name] = wanted.get("private") or wanted.get("visibility") == "private"
        self._answer({"url": f"{self.hub.url}/{name}"})

    def _actions(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            one | {"actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}"}}}
            for one in wanted["objects"]
        ]

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        if self._refused("commit"):
            return
        repository = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
        files = self.hub.files.setdefault(repository, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        url = f"{self.hub.url}/{repository}/commit/{OID}"
        self._answer({"success": True, "commitOid": OID, "commitUrl": url})


def _mode(path: str) -> dict[str, Any]:
    mode = "regular"
    if path.endswith((".safetensors", ".onnx")):
        mode = "lfs"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}
