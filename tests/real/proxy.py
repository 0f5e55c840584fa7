#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""HTTP proxies as one writes them in Python, on 127.0.0.1 at the port in $KODA_PROXY_PORT.

    proxy.py asyncio | http.server | socketserver.TCPServer

Prints its port. Names that end in `.test` are 127.0.0.1. Each request line goes to
standard error. Ends itself after two minutes.
"""

import asyncio
import http.server
import os
import select
import signal
import socket
import socketserver
import sys
import urllib.parse


def address(authority):
    parts = urllib.parse.urlsplit(f"//{authority}")
    host = parts.hostname or ""
    return "127.0.0.1" if host.endswith(".test") else host, parts.port or 80


def relative(target):
    """Authority and path of an absolute URL."""
    parts = urllib.parse.urlsplit(target)
    return parts.netloc, urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve_one(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, version = head.split(b"\r\n")[0].decode().split(" ")
    print(method, target, version, file=sys.stderr, flush=True)
    authority, path = (target, "") if method == "CONNECT" else relative(target)
    try:
        upstream = await asyncio.open_connection(*address(authority))
    except OSError:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        return
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        rest = head.partition(b"\r\n")[2]
        upstream[1].write(f"{method} {path} HTTP/1.0\r\n".encode() + rest)
    await asyncio.gather(pump(reader, upstream[1]), pump(upstream[0], writer))


async def serve_asyncio(port):
    server = await asyncio.start_server(serve_one, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Handler(http.server.BaseHTTPRequestHandler):
    def connect(self, authority):
        try:
            return socket.create_connection(address(authority))
        except OSError as error:
            self.send_error(502, str(error))
            return None

    def pump(self, upstream):
        """Both ways, until either side ends."""
        other = {self.connection: upstream, upstream: self.connection}
        while True:
            for side in select.select(other, [], [])[0]:
                data = side.recv(65536)
                if not data:
                    return
                other[side].sendall(data)

    def do_CONNECT(self):
        upstream = self.connect(self.path)
        if upstream is None:
            return
        self.send_response_only(200)
        self.end_headers()
        with upstream:
            self.pump(upstream)

    def do_GET(self):
        authority, path = relative(self.path)
        upstream = self.connect(authority)
        if upstream is None:
            return
        with upstream:
            upstream.sendall(f"GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n".encode())
            self.pump(upstream)


def serve(server):
    print(server.server_address[1], flush=True)
    server.serve_forever()


def main():
    signal.alarm(120)
    kind, port = sys.argv[1], int(os.environ["KODA_PROXY_PORT"])
    if kind == "asyncio":
        asyncio.run(serve_asyncio(port))
    elif kind == "http.server":
        serve(http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler))
    else:
        serve(socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler))


if __name__ == "__main__":
    main()
