"""Fetches pip's own wheel where Python came without ensurepip, and checks its digest.

usage: python fetch_pip.py DIRECTORY

Prints the wheel's path. Three ways, in this order: any pip there already is (it knows its own
configuration best), the index that pip's configuration names, and a pip wheel of the
distribution's package archive, which then acts as the first way. Only the standard library is used.
"""

import base64
import configparser
import hashlib
import html.parser
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

VERSION = "25.2"
WHEEL = "pip-%s-py3-none-any.whl" % VERSION
SHA256 = "6d67a2b4e7f14d8b31b8b52648866fa717f45a1eb70e83002f4331d07e953717"
LIMIT = 16 << 20  # Bytes; the wheel has under 2 MB, an index page under 1 MB.
DISTRIBUTION_WHEELS = "usr/share/python-wheels"


class Refused(Exception):
    """Something was fetched, and it must not be used."""


def settings(environ=None):
    """pip's own options, as far as fetching one file needs them: files first, then PIP_* variables over them."""
    environ = os.environ if environ is None else environ
    found = {}
    if environ.get("PIP_CONFIG_FILE") != os.devnull:
        home = pathlib.Path(environ.get("HOME", "/"))
        config_home = pathlib.Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        system = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        files = [os.path.join(d, "pip/pip.conf") for d in system.split(":")]
        files += ["/etc/pip.conf", home / ".pip/pip.conf", config_home / "pip/pip.conf"]
        files += [os.path.join(sys.prefix, "pip.conf"), environ.get("PIP_CONFIG_FILE", "")]
        for file in files:
            parser = configparser.RawConfigParser()
            if not file or not parser.read(str(file), encoding="utf-8"):
                continue
            for section in ("global", "download", "install"):
                if parser.has_section(section):
                    found.update((k.replace("_", "-"), v) for k, v in parser.items(section))
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            found[name[4:].lower().replace("_", "-")] = value
    return found


def checked(path):
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    if digest != SHA256:
        raise Refused("`%s` has sha256 %s, %s was expected" % (path, digest, SHA256))
    return str(path)


def by_pip(command, directory):
    """Lets an existing pip download the pinned wheel."""
    done = subprocess.run(
        command + ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-input",
                   "--disable-pip-version-check", "-d", str(directory), "pip==" + VERSION],
        stdin=subprocess.DEVNULL, stdout=sys.stderr)
    path = pathlib.Path(directory) / WHEEL
    return checked(path) if done.returncode == 0 and path.exists() else None


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.found.append(href)


def opener(options):
    """One that uses pip's certificate and proxy settings; the usual proxy variables are urllib's own business."""
    context = ssl.create_default_context(cafile=options.get("cert"))
    handlers = [urllib.request.HTTPSHandler(context=context)]
    if options.get("proxy"):
        handlers.append(urllib.request.ProxyHandler({s: options["proxy"] for s in ("http", "https")}))
    return urllib.request.build_opener(*handlers)


def get(url, options):
    """The bytes at `url`, at most LIMIT; a user and password in it are sent as Basic authorisation."""
    parts = urllib.parse.urlsplit(url)
    headers = {"User-Agent": "pip/" + VERSION}
    if parts.username:
        pair = "%s:%s" % tuple(urllib.parse.unquote(p or "") for p in (parts.username, parts.password))
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    bare = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(bare, headers=headers)
    with opener(options).open(request, timeout=float(options.get("timeout", options.get("default-timeout", 30)))) as reply:
        body = reply.read(LIMIT + 1)
    if len(body) > LIMIT:
        raise Refused("`%s` sends more than %d bytes" % (bare, LIMIT))
    return body


def by_index(options, directory):
    """Reads the simple page of the configured index and downloads the pinned wheel from the link it gives."""
    for index in [options.get("index-url", "")] + options.get("extra-index-url", "").split():
        if not index:
            continue
        page = index.rstrip("/") + "/pip/"
        try:
            links = Links()
            links.feed(get(page, options).decode("utf-8", "replace"))
            for href in links.found:
                url = urllib.parse.urljoin(page, href)
                if urllib.parse.urlsplit(url).path.rpartition("/")[2] != WHEEL:
                    continue
                path = pathlib.Path(directory) / WHEEL
                path.write_bytes(get(url, options))
                return checked(path)
            print("bootstrap: the configured index does not list %s" % WHEEL, file=sys.stderr)
        except (urllib.error.URLError, OSError) as error:
            print("bootstrap: the configured index did not answer: %s" % error, file=sys.stderr)
    return None


def by_distribution(directory):
    """Debian's python3-pip-whl, unpacked without root: its pip then downloads the pinned one."""
    wheels = sorted(pathlib.Path("/", DISTRIBUTION_WHEELS).glob("pip-*.whl"))
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        if not wheels and shutil.which("apt-get") and shutil.which("dpkg-deb"):
            fetched = subprocess.run(["apt-get", "download", "-q", "python3-pip-whl"], cwd=scratch,
                                     stdin=subprocess.DEVNULL, stdout=sys.stderr)
            for package in pathlib.Path(scratch).glob("*.deb") if fetched.returncode == 0 else ():
                subprocess.run(["dpkg-deb", "-x", str(package), scratch], check=True, stdout=sys.stderr)
            wheels = sorted(pathlib.Path(scratch, DISTRIBUTION_WHEELS).glob("pip-*.whl"))
        return by_pip([sys.executable, str(wheels[-1]) + "/pip"], directory) if wheels else None


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    options = settings()
    has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    try:
        wheel = by_pip([sys.executable, "-m", "pip"], directory) if has_pip else None
        wheel = wheel or by_index(options, directory) or by_distribution(directory)
    except Refused as error:
        sys.exit("error: %s\nhint: the index serves something else under pip's name; ask whoever runs it" % error)
    if not wheel:
        sys.exit("error: no way to get pip: no ensurepip, no pip, no index in pip's configuration, no pip wheel package\n"
                 "hint: apt-get install python3-venv, or name your package index: PIP_INDEX_URL=https://…/simple")
    print(wheel)


if __name__ == "__main__":
    main()
