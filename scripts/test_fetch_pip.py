"""fetch_pip against an index of its own on the loopback.

usage: python -m unittest discover -s scripts
"""

import base64
import hashlib
import http.server
import os
import pathlib
import tempfile
import threading
import unittest
import unittest.mock

import fetch_pip

BODY = b"PK a wheel"


class Index(http.server.BaseHTTPRequestHandler):
    wheel = BODY
    seen = []

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        pages = {
            "/simple/pip/": b'<a href="../../files/pip-1.0-py3-none-any.whl">old</a><a name="x"></a>'
                            b'<a href="../../files/%s#sha256=0">pip</a>' % fetch_pip.WHEEL.encode(),
            "/empty/pip/": b"<html></html>",
            "/files/" + fetch_pip.WHEEL: self.wheel,
        }
        body = pages.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


class FetchPip(unittest.TestCase):
    def setUp(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.base = "127.0.0.1:%d" % server.server_address[1]
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.directory = pathlib.Path(held.name)
        Index.wheel, Index.seen = BODY, []
        for patch in (
            unittest.mock.patch.object(fetch_pip, "SHA256", hashlib.sha256(BODY).hexdigest()),
            unittest.mock.patch.dict(os.environ, {"no_proxy": "127.0.0.1"}),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def fetch(self, path, user=""):
        return fetch_pip.by_index({"index-url": "http://%s%s/%s" % (user, self.base, path)}, self.directory)

    def test_the_pinned_wheel_comes_from_the_index_that_is_configured(self):
        path = self.fetch("simple/")
        self.assertEqual(pathlib.Path(path).read_bytes(), BODY)
        self.assertEqual([p for p, _ in Index.seen], ["/simple/pip/", "/files/" + fetch_pip.WHEEL])

    def test_a_user_in_the_address_is_sent_as_authorisation(self):
        self.fetch("simple", user="me:s%40cret@")
        self.assertEqual(Index.seen[0][1], "Basic " + base64.b64encode(b"me:s@cret").decode())

    def test_another_digest_is_refused(self):
        Index.wheel = b"PK another wheel"
        with self.assertRaisesRegex(fetch_pip.Refused, "was expected"):
            self.fetch("simple")

    def test_more_bytes_than_a_wheel_has_are_refused(self):
        with unittest.mock.patch.object(fetch_pip, "LIMIT", 4):
            with self.assertRaisesRegex(fetch_pip.Refused, "more than 4 bytes"):
                self.fetch("simple")

    def test_an_index_that_lacks_it_or_does_not_answer_is_no_way(self):
        self.assertIsNone(self.fetch("empty"))
        self.assertIsNone(self.fetch("nowhere"))
        self.assertIsNone(fetch_pip.by_index({}, self.directory))

    def test_settings_come_from_files_and_the_environment_wins(self):
        config = self.directory / ".config/pip/pip.conf"
        config.parent.mkdir(parents=True)
        config.write_text("[global]\nindex-url = http://file/simple\ntimeout = 7\n[install]\nproxy = p\n")
        found = fetch_pip.settings({"HOME": str(self.directory), "PIP_INDEX_URL": "http://env/simple", "PIP_CERT": ""})
        self.assertEqual((found["index-url"], found["timeout"], found["proxy"]), ("http://env/simple", "7", "p"))
        none = fetch_pip.settings({"HOME": str(self.directory), "PIP_CONFIG_FILE": os.devnull})
        self.assertNotIn("index-url", none)


if __name__ == "__main__":
    unittest.main()
