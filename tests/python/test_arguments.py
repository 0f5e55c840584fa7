# SPDX-License-Identifier: Apache-2.0
"""The arguments of spawn(): checked, converted, and each in the place that it is meant for."""

import contextlib
import ctypes
import io
import math
import os
import pathlib
import socket
import threading
import unittest
from unittest import mock

import kp
import support
from kp import _ffi, _spec
from support import FIXTURE, fixture


def listed(pointer):
    result = []
    while pointer[len(result)] is not None:
        result.append(pointer[len(result)])
    return result


class Struct(support.TestCase):
    """What the library would be given."""

    def struct(self, **arguments):
        return _spec.Spec(**{"command": ["program"], **arguments}).struct()

    def check_refused(self, words, **arguments):
        with self.assertRaisesRegex(kp.InvalidError, words):
            self.struct(**arguments)

    def test_defaults_are_zero(self):
        struct = self.struct()
        self.assertEqual(struct.size, ctypes.sizeof(_ffi.Spec))
        self.assertEqual((listed(struct.argv), listed(struct.env)), ([b"program"], []))
        for name, *_ in _ffi.Spec._fields_[3:]:
            self.assertFalse(getattr(struct, name), name)

    def test_each_field(self):
        struct = self.struct(command=("a", pathlib.Path("b")), env={"A": "1", "B": ""}, cwd="cwd",
                             ca_bundle=pathlib.Path("ca"), no_proxy="no", port_env="PORT",
                             startup_timeout=1, stop_grace=2, log=3, port=4)
        self.assertEqual(listed(struct.argv), [b"a", b"b"])
        self.assertEqual(listed(struct.env), [b"A=1", b"B="])
        self.assertEqual((struct.cwd, struct.ca_bundle, struct.no_proxy, struct.port_env),
                         (b"cwd", b"ca", b"no", b"PORT"))
        self.assertEqual((struct.startup_timeout_ms, struct.stop_grace_ms, struct.log_fd, struct.port),
                         (1000, 2000, 3, 4))

    def test_flags(self):
        self.assertEqual(self.struct(clear_env=True).flags, _ffi.SPEC_CLEAR_ENV)
        self.assertEqual(self.struct(probe_http=True).flags, _ffi.SPEC_PROBE_HTTP)
        self.assertEqual(self.struct(guard=False).flags, _ffi.SPEC_NO_GUARD)
        self.assertEqual(self.struct(reserve=False).flags, _ffi.SPEC_NO_RESERVE)
        self.assertEqual(self.struct(any_listener=True).flags, _ffi.SPEC_ANY_LISTENER)
        self.assertEqual(self.struct(attach=True).flags, _ffi.SPEC_ATTACH)

    def test_durations_are_rounded_up(self):
        for seconds, ms in (0.0001, 1), (0.0011, 2), (0.15, 150), (1.1, 1100), (5, 5000), (4294967.295, 2**32 - 1):
            self.assertEqual(self.struct(startup_timeout=seconds).startup_timeout_ms, ms)
            self.assertEqual(self.struct(stop_grace=seconds).stop_grace_ms, ms)

    def test_zero_is_not_the_default(self):
        self.assertEqual(self.struct(startup_timeout=0.0).startup_timeout_ms, 1)
        self.assertEqual(self.struct(stop_grace=0).stop_grace_ms, 1)

    def test_grace_of_a_stop(self):
        for seconds, ms in (None, -1), (0, 0), (0.0, 0), (0.0001, 1), (3, 3000):
            self.assertEqual(_spec.grace_ms(seconds), ms)

    def test_wrong_durations(self):
        for seconds in -0.001, math.nan, math.inf, 5e6:
            self.check_refused("startup_timeout must be", startup_timeout=seconds)
            self.check_refused("stop_grace must be", stop_grace=seconds)
            with self.assertRaisesRegex(kp.InvalidError, "grace must be"):
                _spec.grace_ms(seconds)

    def test_ports(self):
        for port in 0, 1, 65535:
            self.assertEqual(self.struct(port=port).port, port)
        for port in -1, 65536, 2**32 + 80:
            self.check_refused("port must be", port=port)
        for port in "80", 80.0:
            with self.assertRaises(TypeError):
                self.struct(port=port)

    def test_one_string_is_no_command(self):
        for command in "true", b"true":
            with self.assertRaisesRegex(TypeError, "not one string"):
                self.struct(command=command)

    def test_null_bytes(self):
        for name in "cwd", "ca_bundle", "no_proxy", "port_env":
            self.check_refused(name + ".*null byte", **{name: "a\0b"})
        self.check_refused("command.*null byte", command=["a\0b"])
        self.check_refused("env.*null byte", env={"A": "a\0b"})
        self.check_refused("env.*null byte", env={"A\0": "a"})

    def test_names_of_variables(self):
        self.check_refused("env: 'A=B' is not", env={"A=B": "C"})

    def test_bytes_that_are_no_text(self):
        self.assertEqual(self.struct(no_proxy="\udcff").no_proxy, b"\xff")

    def test_log(self):
        with open("/dev/null", "wb") as file:
            self.assertEqual(self.struct(log=file).log_fd, file.fileno())
            self.assertEqual(self.struct(log=file.fileno()).log_fd, file.fileno())
        with self.assertRaises(ValueError):
            self.struct(log=file)  # It is closed.
        with self.assertRaises(io.UnsupportedOperation):
            self.struct(log=io.StringIO())
        self.check_refused(r"log must not be descriptor 0.*os\.dup\(\)", log=0)
        for fd in -1, 2**32 + 2:
            self.check_refused("log must be", log=fd)


class Forms(support.TestCase):
    """Each argument of each function is found in its own place of the spec."""

    VALUES = {"startup_timeout": 2.0, "stop_grace": 3.0, "env": {"A": "B"}, "cwd": "c", "log": 4,
              "ca_bundle": "d", "no_proxy": "e", "port_env": "f"}

    def check(self, spec_of, values, flags, **given):
        values = {name: self.VALUES[name] for name in values}
        plain = vars(_spec.Spec(**given))
        self.assertEqual(vars(spec_of(**values)), {**plain, **values})
        for flag in flags:
            changed = {flag: not plain[flag]}
            self.assertEqual(vars(spec_of(**changed)), {**plain, **changed})

    def started(self, function, *args, **given):
        with mock.patch.object(kp.Proxy, "_start"), mock.patch.object(kp.Proxy, "_become_ready"):
            return function(*args, **given)._spec

    def test_spawn(self):
        flags = "clear_env", "guard", "reserve", "probe_http", "any_listener"
        for function in kp.spawn, kp.spawn_async:
            self.check(lambda **given: self.started(function, ["a"], port=1, **given),
                       self.VALUES, flags, command=["a"], port=1)

    def test_attach(self):
        for function in kp.attach, kp.attach_async:
            self.check(lambda **given: self.started(function, 1, **given),
                       ("startup_timeout", "ca_bundle", "no_proxy"), ("probe_http", "any_listener"),
                       port=1, attach=True)


class Effects(support.TestCase):
    """What the proxy finds."""

    def facts(self, command=None, **options):
        path = self.path("facts")
        with kp.spawn([*(command or [FIXTURE]), "environ", path], **options):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                lines = [line.rstrip("\n").split(" ", 1) for line in file]
        facts = {key: value for key, value in lines if key != "env"}
        facts["env"] = dict(value.split("=", 1) for key, value in lines if key == "env")
        return facts

    def test_env(self):
        env = self.facts(env={"NAME": "a=\udcff"})["env"]
        self.assertEqual((env["NAME"], env["PATH"]), ("a=\udcff", os.environ["PATH"]))

    def test_clear_env(self):
        env = self.facts(env={"NAME": "value"}, clear_env=True)["env"]
        self.assertEqual(set(env), {"NAME", kp.PORT_ENV})

    def test_environment_of_the_host_is_pythons(self):
        os.environ["KP_TEST_NAME"] = "value"
        self.addCleanup(os.environ.pop, "KP_TEST_NAME")
        self.assertEqual(self.facts()["env"]["KP_TEST_NAME"], "value")

    def test_what_speaks_of_the_host_alone_is_not_the_proxys(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        told = {"NOTIFY_SOCKET": "/run/notify", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1000",
                "HTTPS_PROXY": f"http://localhost:{port}/", "http_proxy": "http://other:1"}
        with mock.patch.dict(os.environ, told):
            env = self.facts(port=port)["env"]
            own = self.facts(port=port, env={"NOTIFY_SOCKET": "/run/own"})["env"]
            self.assertIn("NOTIFY_SOCKET", kp.env())
        self.assertEqual(told.keys() & env.keys(), {"http_proxy"})
        self.assertEqual(own["NOTIFY_SOCKET"], "/run/own")

    def test_cwd(self):
        folder = os.path.realpath(self.folder())
        self.assertEqual(self.facts(cwd=pathlib.Path(folder))["cwd"], folder)

    def test_port_env(self):
        env = self.facts(port_env="THE_PORT", env={"FIXTURE_PORT_ENV": "THE_PORT"})["env"]
        self.assertIn("THE_PORT", env)
        self.assertNotIn(kp.PORT_ENV, env)

    def test_guard(self):
        facts = self.facts()
        self.assertNotEqual(facts["pgid"], facts["pid"], "the guard leads the group")
        facts = self.facts(guard=False)
        self.assertEqual(facts["pgid"], facts["pid"])

    def test_reserve(self):
        with kp.spawn(fixture("noreuse"), reserve=False) as proxy:
            self.assertTrue(support.listens(proxy.port))
        with self.assertRaises(kp.ExitedError):
            kp.spawn(fixture("noreuse"))

    def test_probe_http(self):
        command = fixture(*support.OTHER_PROTOCOL)
        with kp.spawn(command):
            pass
        with self.assertRaises(kp.NotHttpError):
            kp.spawn(command, probe_http=True)
        with kp.spawn(fixture("serve"), probe_http=True) as proxy:
            self.assertEqual(support.tunnel(proxy), (b"200", b"there and back"))

    def daemon(self, path, ended):
        """Opens the port that a command asks for by a file, as Docker's does."""
        support.wait_until(lambda: os.path.exists(path) and os.path.getsize(path), "it is asked")
        with open(path, encoding="ascii") as file:
            port = int(file.read())
        with socket.create_server(("127.0.0.1", port)):
            ended.wait(support.PATIENCE)

    @contextlib.contextmanager
    def command_that_asks_a_daemon(self):
        path, ended = self.path("asked"), threading.Event()
        thread = threading.Thread(target=self.daemon, args=[path, ended])
        thread.start()
        try:
            yield ["sh", "-c", f'echo "${kp.PORT_ENV}" >"$0"; exec sleep 60', path]
        finally:
            ended.set()
            thread.join(support.PATIENCE)

    def test_any_listener(self):
        with self.command_that_asks_a_daemon() as command, self.assertRaises(kp.ForeignListenerError):
            kp.spawn(command)
        with self.command_that_asks_a_daemon() as command, kp.spawn(command, any_listener=True) as proxy:
            self.assertTrue(support.listens(proxy.port))

    def test_port(self):
        with kp.spawn(fixture("serve")) as proxy:
            port = proxy.port
        with kp.spawn(fixture("serve"), port=port) as proxy:
            self.assertEqual(proxy.port, port)

    def test_log(self):
        path = self.path("log")
        with open(path, "wb") as log:
            proxy = kp.spawn(["sh", "-c", 'echo out; echo err >&2; exec "$0" serve', FIXTURE], log=log)
        with proxy, open(path, "rb") as log:
            self.assertEqual(log.read(), b"out\nerr\n")

    def test_log_to_a_pipe_ends_with_the_proxy(self):
        reader, writer = os.pipe()
        with open(reader, "rb") as output:
            with kp.spawn(["sh", "-c", 'echo out; exec "$0" serve', FIXTURE], log=writer):
                os.close(writer)
            self.assertEqual(output.read(), b"out\n")

    def test_log_to_a_pipe_goes_on_blocking(self):
        reader, writer = os.pipe()
        with open(reader, "rb") as output, open(writer, "wb") as log:
            with kp.spawn(fixture("nonblocking"), log=log) as proxy:
                self.assertEqual(output.readline(), b"blocking\n")
                self.assertTrue(os.get_blocking(writer))
                proxy.restart()
                self.assertEqual(output.readline(), b"blocking\n")
                self.assertTrue(os.get_blocking(writer))

    def test_standard_error_takes_all_that_the_host_writes(self):
        script = """
import os, sys, kp
with kp.spawn([sys.argv[1], "nonblocking"]):
    print(sum(os.write(2, b"x" * 1000000) for _ in range(5)))
"""
        status, output, errors = self.run_host(script, FIXTURE)
        self.assertEqual((status, output, errors.count("x")), (0, "5000000\n", 5000000))

    def test_errors_of_the_library_come_through(self):
        for arguments in {"env": {"": "value"}}, {"env": {kp.PORT_ENV: "1"}}, {"log": 10**6}, {"port_env": ""}:
            with self.subTest(**arguments), self.assertRaises(kp.InvalidError):
                kp.spawn(fixture("serve"), **arguments)


if __name__ == "__main__":
    unittest.main()
