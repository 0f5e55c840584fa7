# SPDX-License-Identifier: Apache-2.0
"""A connection that is held open through a proxy, and the origin at its other end."""

import contextlib
import secrets
import socket
import socketserver
import threading

TIMEOUT_S = 20
ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Holder(socketserver.BaseRequestHandler):
    """Gives back what it got, as the first part of an answer that never ends."""

    def handle(self):
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            data = self.request.recv(4096)
            if not data:
                return
            got += data
        with contextlib.suppress(OSError):
            self.request.sendall(ANSWER + b"%x\r\n%s\r\n" % (len(got), got))
            self.request.recv(1)  # until the proxy closes


class Origin(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Holder)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


def read_until(connection, mark):
    got = b""
    while mark not in got:
        data = connection.recv(4096)
        if not data:
            raise ConnectionError(f"closed after {got!r}")
        got += data
    return got


def ask_http(connection, name, port):
    connection.sendall(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
    answer = read_until(connection, b"\r\n\r\n")
    if answer.split()[1] != b"200":
        raise ConnectionError(f"the proxy answered {answer!r}")


def read_exactly(connection, count):
    got = b""
    while len(got) < count:
        data = connection.recv(count - len(got))
        if not data:
            raise ConnectionError(f"closed after {got!r}")
        got += data
    return got


def ask_socks(connection, name, port):
    """RFC 1928: no authentication; connect to a name."""
    connection.sendall(b"\5\1\0")
    if read_exactly(connection, 2) != b"\5\0":
        raise ConnectionError("the proxy wants authentication")
    connection.sendall(b"\5\1\0\3" + bytes([len(name)]) + name.encode() + port.to_bytes(2, "big"))
    head = read_exactly(connection, 4)
    if head[1] != 0 or head[3] != 1:
        raise ConnectionError(f"the proxy answered {head!r}")
    read_exactly(connection, 6)


ASK = {"http": ask_http, "socks": ask_socks}


def open_tunnel(proxy, proxy_port, name, origin_port):
    """A connection to the Origin, through the proxy; something has gone both ways."""
    connection = socket.create_connection(("127.0.0.1", proxy_port), TIMEOUT_S)
    try:
        ASK[proxy.speaks](connection, name, origin_port)
        token = secrets.token_hex().encode()
        start = b"\0" if proxy.guesses_protocol else b"GET /"
        host = f"{name}:{origin_port}".encode()
        connection.sendall(start + token + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        read_until(connection, token)
    except BaseException:
        connection.close()
        raise
    return connection


def is_open(connection):
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
