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
        self.group = ""
        self.job_type = ""
        self.notes = ""
        self.tags: list[str] = []
        self.files: set[str] = set()
        self.exit_code: int | None = None
        self.preempting = False

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(self.lines[number]) for number in sorted(self.lines)]


class WandbServer:
    """Context manager: serves on a free port of this host."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.operations: list[str] = []
        self.bodies: list[bytes] = []
        self.refuses_history = threading.Event()
        self.refusal = 503
        """Status of what is refused."""
        self.refuses_all: int | None = None
        """Status of every answer, where it is set."""
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
        if operation in ("Viewer", "GetViewer", "GetDefaultEntity"):
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
        if operation == "UpsertView2":
            return self._upsert_view(variables)
        if operation == "View":
            return self._view(variables)
        if operation == "CreateArtifact":
            return self._create_artifact(variables)
        if operation == "CreateArtifactManifest":
            return self._create_manifest(variables)
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "1", "digest": "d"}}}
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
        run.display_name = variables.get("displayName") or run.display_name
        run.group = variables.get("groupName") or run.group
        run.job_type = variables.get("jobType") or run.job_type
        run.notes = variables.get("notes") or run.notes
        run.tags = variables.get("tags") or run.tags
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

    def _upsert_view(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        is_new = name not in self.views
        assert is_new or variables.get("id") == self.views[name]["id"], "a view of this name exists"
        view = {"id": f"view-{len(self.views)}", **variables}
        if not is_new:
            view["id"] = self.views[name]["id"]
        self.views[name] = view
        return {"upsertView": {"view": {"id": view["id"], "name": name}, "inserted": is_new}}

    def _view(self, variables: dict[str, Any]) -> dict[str, Any]:
        found = self.views.get(variables["viewName"])
        edges = []
        if found:
            edges.append({"node": {key: found[key] for key in ("id", "displayName", "spec")}})
        return {"project": {"allViews": {"edges": edges}}}

    def _create_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        content = variables.get("input") or variables
        self.artifacts.append(content)
        artifact = {
            "id": str(len(self.artifacts)),
            "state": "PENDING",
            "artifactSequence": {"id": "1", "latestArtifact": None},
        }
        return {"createArtifact": {"artifact": artifact}}

    def _create_manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = f"manifest-{len(self.artifacts)}"
        file = {
            "id": "1",
            "name": name,
            "displayName": name,
            "uploadUrl": f"{self.url}/upload/{name}",
            "uploadHeaders": [],
        }
        manifest = {"id": "1", "file": file}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

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
        if content.get("complete"):
            run.exit_code = content.get("exitcode")
        run.preempting = run.preempting or bool(content.get("preempting"))
        run.files.update(content.get("uploaded") or [])


class _Handler(BaseHTTPRequestHandler):
    server_state: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        path = urlsplit(self.path).path
        self.server_state.bodies.append(body)
        if self.server_state.refuses_all is not None:
            self._send({"error": "no"}, self.server_state.refuses_all)
            return
        if path.endswith("/graphql"):
            request = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            data = self.server_state.answer(
                operation[1] if operation else "", request.get("variables") or {}
            )
            self._send({"data": data})
        elif path.endswith("/file_stream"):
            if self.server_state.refuses_history.is_set():
                self._send({"error": "later"}, self.server_state.refusal)
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
