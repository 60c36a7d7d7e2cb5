"""PUREE's web service, played on the loopback address."""

import http.server
import json
import re
import threading


class Puree(http.server.ThreadingHTTPServer):
    """Takes uploads as the service does and answers with purity = first gene ÷ 100, after `pending` polls."""

    def __init__(self, **behaviour):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = {"pending": 1, "busy": 0} | behaviour
        self.requests, self.uploads = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/server"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def upload(self, body: str) -> dict:
        self.uploads.append(body)
        return {"id": str(len(self.uploads)), "success": self.behaviour.get("accepts", True)}

    def result(self, job: int) -> str | dict:
        if self.behaviour["pending"] > 0:
            self.behaviour["pending"] -= 1
            return {"success": "False", "error": self.behaviour.get("state", "File is not ready")}
        rows = re.findall(r"^(Sample_\d+)\t([\d.]+)", self.uploads[job - 1], re.MULTILINE)
        answer = [f"{name}\t{float(value) / 100}" for name, value in rows]
        return self.behaviour.get("answer") or "\n".join(["\tpurity", *answer[::-1], ""])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.requests.append(("POST", self.path))
        if elsewhere := self.server.behaviour.get("redirect"):
            return self._answer("", 307, Location=elsewhere)
        return self._answer(self.server.upload(body))

    def do_GET(self):
        self.server.requests.append(("GET", self.path))
        if self.server.behaviour["busy"] > 0:
            self.server.behaviour["busy"] -= 1
            return self._answer("busy", 503)
        return self._answer(self.server.result(int(self.path.split("id=")[1])))

    def _answer(self, content, status=200, **headers):
        text = json.dumps(content) if isinstance(content, dict) else content
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(text.encode()))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass
