"""A stand-in for the W&B server: as much of its GraphQL and of its file stream as the real client
needs.

Keeps the history of each run as the server does, by line number, so that a test can read what
arrived: rows that came twice are there twice, rows that were overwritten are gone.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KEY = "0123456789abcdef0123456789abcdef01234567"


class Run:
    """What the server holds of one run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[int, str] = {}
        self.summary = "{}"
        self.config = "{}"
        self.display_name = name

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(self.lines[number]) for number in sorted(self.lines)]


class WandbServer:
    """Context manager: serves on a free port of this host."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.operations: list[str] = []
        self.refuses_history = threading.Event()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "0.2",
        }

    def __enter__(self) -> WandbServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what the client asks ---------------------------------------------------------------------

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.operations.append(operation)
        if operation in ("Viewer", "GetViewer"):
            return {
                "viewer": {
                    "id": "1",
                    "entity": "me",
                    "username": "me",
                    "email": "me@example.org",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        if operation == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            bucket = run and self._bucket(run)
            return {
                "model": {
                    "id": "1",
                    "name": "p",
                    "entity": {"id": "1", "name": "me"},
                    "bucket": bucket,
                }
            }
        if operation == "UpsertBucket":
            return self._upsert(variables)
        if operation in ("ServerFeaturesQuery", "ServerInfo", "QueryServerInfo"):
            return {
                "serverInfo": {
                    "features": [],
                    "cliVersionInfo": {"min_cli_version": "0.0.1", "max_cli_version": "99"},
                    "latestLocalVersionInfo": None,
                }
            }
        if operation == "CreateRunFiles":
            files = [
                {"name": name, "uploadUrl": f"{self.url}/upload/{name}"}
                for name in variables["files"]
            ]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if operation == "RunStoppedStatus":
            return {"project": {"run": {"stopped": False}}}
        return {}

    def _bucket(self, run: Run) -> dict[str, Any]:
        last = [run.lines[max(run.lines)]] if run.lines else []
        return {
            "id": run.name,
            "name": run.name,
            "summaryMetrics": run.summary,
            "displayName": run.display_name,
            "logLineCount": 0,
            "historyLineCount": len(run.lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps(last),
            "eventsTail": "[]",
            "config": run.config,
            "tags": [],
            "notes": "",
            "wandbConfig": '{"t": 1}',
        }

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or variables.get("id")
        is_new = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.config = variables.get("config") or run.config
        project = {
            "id": "1",
            "name": variables.get("project") or "p",
            "entity": {"id": "1", "name": "me"},
        }
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.display_name,
            "description": "",
            "config": run.config,
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.lines),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}

    def stream(self, name: str, content: dict[str, Any]) -> None:
        run = self.runs.setdefault(name, Run(name))
        files = content.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history:
            for number, line in enumerate(history["content"], history["offset"]):
                run.lines[number] = line
        summary = files.get("wandb-summary.json")
        if summary:
            run.summary = summary["content"][-1]


class _Handler(BaseHTTPRequestHandler):
    server_state: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        path = urlsplit(self.path).path
        if path.endswith("/graphql"):
            request = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            data = self.server_state.answer(
                operation[1] if operation else "", request.get("variables") or {}
            )
            self._send({"data": data})
        elif path.endswith("/file_stream"):
            if self.server_state.refuses_history.is_set():
                self._send({"error": "later"}, 503)
                return
            self.server_state.stream(path.split("/")[-2], json.loads(body))
            self._send({})
        else:
            self._send({})

    def do_GET(self) -> None:
        self._send({})

    do_PUT = do_POST

    def _send(self, content: dict[str, Any], status: int = 200) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass
