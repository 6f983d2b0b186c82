"""A small hub on loopback: it answers what huggingface_hub's own client asks, from memory.

Repositories have commits, branches, tags and owners; they may be private or gated. Status codes and
error codes are those of the real hub: whoever is not logged in reads 401 for what is missing,
private or gated alike.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
LFS = (".safetensors",)  # what is not kept in git itself


@dataclass
class Repository:
    """A repository: files by commit, commits by branch or tag, and who may read it."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    forbidden: bool = False  # to tokens of too narrow a scope

    def commit(self, files: Files, ref: str = "main") -> str:
        """Add files on top of a branch; returns the new commit."""
        whole = self.commits.get(self.refs.get(ref, ""), {}) | files
        digest = hashlib.sha1(repr((len(self.commits), sorted(whole.items()))).encode())
        self.commits[digest.hexdigest()] = whole
        self.refs[ref] = digest.hexdigest()
        return digest.hexdigest()


class Hub:
    """Repositories by OWNER/NAME, users by token, and every request that came in.

    A user reads what is public or the user's own, and gated repositories of `admitted`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.users: dict[str, str] = {}
        self.admitted: set[tuple[str, str]] = set()  # (user, repository)
        self.uploads: dict[str, bytes] = {}  # by sha256
        self.asked: list[tuple[str, str]] = []  # (method, path)
        self.url = ""

    def refusal(self, user: str | None, name: str) -> tuple[int, str] | None:
        """Status and error code for a user who may not read a repository; else None."""
        repository = self.repositories.get(name)
        own = user is not None and name.split("/")[0] == user
        if repository is None or repository.private and not own:
            return (401 if user is None else 404), "RepoNotFound"
        if repository.gated and not own and (user, name) not in self.admitted:
            return (401 if user is None else 403), "GatedRepo"
        if repository.forbidden:
            return 403, ""
        return None


class Answers(BaseHTTPRequestHandler):
    """Answers of a hub; the server's class carries it as `hub`."""

    hub: Hub

    def log_message(self, *args) -> None:
        pass

    # -- plumbing

    @property
    def user(self) -> str | None:
        return self.hub.users.get((self.headers.get("authorization") or "").removeprefix("Bearer "))

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(body))} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, values: object, status: int = 200) -> None:
        self.reply(status, json.dumps(values).encode(), Content_Type="application/json")

    def refuse(self, status: int, code: str, message: str = "") -> None:
        self.reply(status, b"{}", X_Error_Code=code, X_Error_Message=message or code)

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.hub.asked.append((self.command, path))
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                answer(self, *match.groups())
                return
        self.refuse(404, "NotImplemented", f"{self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def readable(self, name: str) -> Repository | None:
        """The repository, or None after its refusal is sent."""
        refused = self.hub.refusal(self.user, name)
        if refused is not None:
            self.refuse(*refused)
            return None
        return self.hub.repositories[name]

    def writable(self, name: str) -> bool:
        """Whether the user owns a repository or a name; else its refusal is sent."""
        if self.user is None:
            self.refuse(401, "", "Invalid username or password.")
        elif name.split("/")[0] != self.user:
            self.refuse(403, "", f"you have no right to write to {name}")
        else:
            return True
        return False

    # -- reading

    def resolve(self, name: str, revision: str, file: str) -> None:
        repository = self.readable(name)
        if repository is None:
            return
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self.refuse(404, "RevisionNotFound")
        elif file not in repository.commits[commit]:
            self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        else:
            data = repository.commits[commit][file]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self.reply(200, data, ETag=etag, X_Repo_Commit=commit)

    def info(self, name: str, revision: str | None = None) -> None:
        repository = self.readable(name)
        if repository is None:
            return
        commit = repository.refs.get(revision or "main", revision)
        if repository.commits and commit not in repository.commits:
            self.refuse(404, "RevisionNotFound")
            return
        files = repository.commits.get(commit, {})
        facts = {"id": name, "private": repository.private, "sha": commit}
        self.json(facts | {"siblings": [{"rfilename": file} for file in files]})

    def tree(self, name: str, revision: str, folder: str | None) -> None:
        repository = self.readable(name)
        if repository is None:
            return
        files = repository.commits.get(repository.refs.get(revision, revision), {})
        below = "" if folder is None else f"{folder}/"
        self.json(
            [
                {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
                for path, data in files.items()
                if path.startswith(below)
            ]
        )

    # -- writing

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization'] or self.user}/{asked['name']}"
        if not self.writable(name):
            return
        known = name in self.hub.repositories
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories.setdefault(name, Repository(private=private))
        url = {"url": f"{self.hub.url}/{name}", "name": name}
        self.json(url, 409 if known else 200)

    def validate(self) -> None:
        head = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        errors = [] if head else [{"message": "no metadata"}]
        self.json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, name: str, revision: str) -> None:
        if self.writable(name):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self.json({"files": files})

    def batch(self, name: str) -> None:
        if self.writable(name):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                for one in json.loads(self.body)["objects"]
            ]
            self.json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.uploads[oid] = self.body
        self.reply(200)

    def commit(self, name: str, revision: str) -> None:
        if not self.writable(name):
            return
        files: Files = {}
        for line in self.body.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        made = self.hub.repositories[name].commit(files, revision)
        url = f"{self.hub.url}/{name}/commit/{made}"
        self.json({"success": True, "commitOid": made, "commitUrl": url})


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (("GET", "HEAD"), rf"/{REPO}/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", Answers.resolve),
    (("GET",), rf"/api/models/{REPO}", Answers.info),
    (("GET",), rf"/api/models/{REPO}/revision/(.+)", Answers.info),
    (("GET",), rf"/api/models/{REPO}/tree/([^/]+)(?:/(.+))?", Answers.tree),
    (("POST",), r"/api/repos/create", Answers.create),
    (("POST",), r"/api/validate-yaml", Answers.validate),
    (("POST",), rf"/api/models/{REPO}/preupload/(.+)", Answers.preupload),
    (("POST",), rf"/{REPO}\.git/info/lfs/objects/batch", Answers.batch),
    (("PUT",), r"/lfs/(\w+)", Answers.upload),
    (("POST",), rf"/api/models/{REPO}/commit/(.+)", Answers.commit),
]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers on a port of this machine until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Answers,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    # looks often whether it is to end: half a second is the default
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
