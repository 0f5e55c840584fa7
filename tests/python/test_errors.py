# SPDX-License-Identifier: Apache-2.0
"""Errors: their classes, and what they carry."""

import copy
import errno
import pickle
import signal
import socket
import unittest

import kp
import support
from kp import _errors, _ffi
from support import fixture


class Failures(support.TestCase):
    def failure(self, kind, command, **options):
        with self.assertRaises(kind) as caught:
            kp.spawn(command, **options)
        self.assertIs(type(caught.exception), kind)
        self.assertEqual(str(caught.exception), caught.exception.message)
        return caught.exception

    def test_empty_command(self):
        error = self.failure(kp.InvalidError, [])
        self.assertEqual(error.message, "command must not be empty")
        self.assertEqual(error.code, kp.Code.INVALID)

    def test_no_such_program(self):
        error = self.failure(kp.SpawnError, ["/no/such/program"])
        self.assertEqual((error.code, error.errno), (kp.Code.SPAWN, errno.ENOENT))
        self.assertIn("/no/such/program", error.message)

    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            error = self.failure(kp.PortInUseError, fixture("serve"), port=taken.getsockname()[1])
        self.assertEqual(error.code, kp.Code.PORT_IN_USE)

    def test_time_out(self):
        error = self.failure(kp.TimedOutError, fixture("never"), startup_timeout=0.15)
        self.assertRegex(error.message, "did not bind 127.0.0.1:[0-9]+: timed out")
        self.assertEqual((error.code, error.exit_code, error.term_signal), (kp.Code.TIMED_OUT, None, None))

    def test_exit(self):
        error = self.failure(kp.ExitedError, fixture("exit", 7), startup_timeout=100)
        self.assertRegex(error.message, "did not bind .*exited with status 7")
        self.assertEqual((error.code, error.exit_code, error.term_signal), (kp.Code.EXITED, 7, None))

    def test_exit_with_status_0(self):
        self.assertEqual(self.failure(kp.ExitedError, ["true"], startup_timeout=100).exit_code, 0)

    def test_signal(self):
        error = self.failure(kp.ExitedError, ["sh", "-c", "kill -KILL $$"], startup_timeout=100)
        self.assertEqual((error.exit_code, error.term_signal), (None, signal.SIGKILL))

    def test_output(self):
        with open(self.path("log"), "wb") as log:
            error = self.failure(kp.ExitedError, fixture("print-exit", 1, "no licence"), log=log)
        self.assertEqual(error.output.strip(), "no licence")

    def test_output_need_not_be_text(self):
        with open(self.path("log"), "wb") as log:
            error = self.failure(kp.ExitedError, ["sh", "-c", r"printf '\377\n'; exit 1"], log=log)
        self.assertEqual(error.output.strip(), "\\xff")


class Exceptions(support.TestCase):
    def test_classes(self):
        for code in kp.Code:
            struct = _ffi.ErrorStruct(code=code, message=b"words", exit_code=-1)
            error = _errors.from_struct(struct)
            with self.subTest(code=code.name):
                self.assertIsInstance(error, kp.Error)
                self.assertIs(error.code, code)
                self.assertEqual((error.errno, error.exit_code, error.term_signal), (None, None, None))
                named = getattr(kp, code.name.title().replace("_", "") + "Error", kp.Error)
                self.assertIs(type(error), named)

    def test_code_of_a_newer_library(self):
        error = _errors.from_struct(_ffi.ErrorStruct(code=-99, message=b"new"))
        self.assertEqual((type(error), error.code), (kp.Error, -99))

    def test_result_alone(self):
        error = _errors.from_result(kp.Code.FORKED, "stop")
        self.assertIsInstance(error, kp.ForkedError)
        self.assertEqual(str(error), "stop: KP_ERR_FORKED")

    def test_invalid_is_a_value_error(self):
        self.assertTrue(issubclass(kp.InvalidError, ValueError))

    def test_made_in_python(self):
        self.assertEqual(kp.StateError("words").code, kp.Code.STATE)

    def test_pickle_and_copy(self):
        error = kp.ExitedError("words", errno=1, exit_code=2, term_signal=3, output="said")
        for other in pickle.loads(pickle.dumps(error)), copy.copy(error):
            self.assertIs(type(other), kp.ExitedError)
            self.assertEqual((other.args, vars(other)), (error.args, vars(error)))


if __name__ == "__main__":
    unittest.main()
