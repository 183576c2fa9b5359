"""Emulates the part of Google Cloud Storage's JSON API that gcsfs and TensorStore use.

Objects have generations, which TensorStore compares before it overwrites an object. The emulators on PyPI lack them.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

BUCKET = "bucket"
_OBJECT = re.compile(
    r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)(?:/moveTo/o/([^/]+)|/rewriteTo/b/[^/]+/o/([^/]+))?"
)


@contextmanager
def emulated_bucket() -> Iterator[dict[str, str]]:
    """Yields environment variables with which gs://bucket is an empty bucket in the memory of this process."""
    server = ThreadingHTTPServer(("localhost", 0), _Handler)
    server.daemon_threads, server.store, server.lock, server.generation = True, {}, threading.RLock(), 0
    server.handle_error = lambda *_: None  # Clients close the connection when they no longer need the answer.
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://localhost:{server.server_address[1]}"
    try:
        yield {
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "NO_GCE_CHECK": "true",  # no search for credentials
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # no request for the kind of the bucket, which goes elsewhere
        }
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize, disable_nagle_algorithm = -1, True  # One packet for head and content saves 40 ms per answer.

    def log_message(self, *_):
        pass

    def _handle(self):
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = url.path.strip("/").split("/")
        with self.server.lock:
            if parts[0] == "batch":
                self._batch()
            elif unquote(parts[parts.index("b") + 1]) != BUCKET:
                self._answer(404)
            elif parts[0] == "upload":
                self._upload()
            elif match := _OBJECT.fullmatch(url.path):
                self._object(*(part and unquote(part) for part in match.groups()[1:]))
            elif parts[-1] == "o":
                self._listing()
            else:
                self._answer(200, {"kind": "storage#bucket", "name": BUCKET})

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _answer(self, status, content=b"", **headers):
        content = json.dumps(content).encode() if isinstance(content, dict) else content
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _described(self, name):
        data, generation = self.server.store[name]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        known = {"kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(len(data)), "md5Hash": md5}
        times = dict.fromkeys(("timeCreated", "updated"), "2026-01-01T00:00:00.000Z")
        return {**known, **times, "generation": str(generation), "metageneration": "1", "etag": str(generation)}

    def _object(self, name, moved_to, copied_to):
        if name not in self.server.store:
            if self._agrees(name):
                self._answer(404)
        elif self.command == "DELETE":
            if self._agrees(name):
                del self.server.store[name]
                self._answer(204)
        elif moved_to or copied_to:
            self._put(moved_to or copied_to, self.server.store[name][0])
            if moved_to:
                del self.server.store[name]
            self._answer(200, {**self._described(moved_to or copied_to), "done": True})
        elif self.query.get("alt") == "media":
            if self._agrees(name):
                self._content(*self.server.store[name])
        else:
            self._answer(200, self._described(name))

    def _agrees(self, name):
        """Returns whether the request's conditions on the generation hold; sends the answer if they do not."""
        generation = str(self.server.store.get(name, (b"", 0))[1])
        if self.query.get("ifGenerationMatch", generation) != generation:
            self._answer(412)
            return False
        if self.query.get("ifGenerationNotMatch") == generation:
            self._answer(304)
            return False
        return True

    def _content(self, data, generation):
        status, headers = 200, {"x_goog_generation": str(generation), "Content_Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            if first > last:
                return self._answer(416)
            status, headers["Content_Range"] = 206, f"bytes {first}-{last}/{len(data)}"
            data = data[first : last + 1]
        return self._answer(status, data, **headers)

    def _listing(self):
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        names = sorted(name for name in self.server.store if name.startswith(prefix))
        names = [name for name in names if self.query.get("startOffset", "") <= name]
        if "endOffset" in self.query:
            names = [name for name in names if name < self.query["endOffset"]]
        folders = set()
        if delimiter:
            folders = {f"{prefix}{n[len(prefix) :].split('/')[0]}/" for n in names if delimiter in n[len(prefix) :]}
            names = [name for name in names if delimiter not in name[len(prefix) :]]
        items = [self._described(name) for name in names[: int(self.query.get("maxResults", 1000))]]
        self._answer(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)})

    def _put(self, name, data):
        self.server.generation += 1
        self.server.store[name] = (data, self.server.generation)

    def _upload(self):
        kind, data, name = self.query["uploadType"], self.body, self.query.get("name")
        if kind == "resumable" and "upload_id" not in self.query:
            name = name or json.loads(self.body)["name"]
            return self._answer(200, Location=f"{self.server_url}{self.path}&upload_id=1")
        if kind == "multipart":
            boundary = self.headers["Content-Type"].split('boundary="')[1].strip('"').encode()
            _, described, rest = data.split(b"--" + boundary, 2)
            name = json.loads(described.split(b"\n\n", 1)[1])["name"]
            data = rest.split(b"\n\n", 1)[1].removesuffix(b"\n--" + boundary + b"--")
        if kind == "resumable":
            first, last, total = map(int, re.findall(r"\d+", self.headers["Content-Range"]))
            parts = self.server.store.setdefault(f"\0{name}", (b"", 0))[0] if first else b""
            data = parts[:first] + data
            if last + 1 < total:
                self.server.store[f"\0{name}"] = (data, 0)
                return self._answer(308, Range=f"bytes=0-{last}")
            self.server.store.pop(f"\0{name}", None)
        if self._agrees(name):
            self._put(name, data)
            self._answer(200, self._described(name))
        return None

    @property
    def server_url(self):
        return f"http://{self.headers['Host']}"

    def _batch(self):
        """Deletes many objects."""
        answers = []
        for path in re.findall(rb"DELETE (\S+) HTTP", self.body):
            name = unquote(_OBJECT.fullmatch(path.decode())[2])
            found = self.server.store.pop(name, None)
            answers.append(f"--limit\r\n\r\nHTTP/1.1 {204 if found else 404}\r\n\r\n{{}}\r\n")
        content = "".join([*answers, "--limit--"]).encode()
        self._answer(200, content, Content_Type="multipart/mixed; boundary=limit")
