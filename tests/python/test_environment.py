# SPDX-License-Identifier: Apache-2.0
"""Environments for children."""

import os
import subprocess
import threading
import unittest
from unittest import mock

import kp
import support
from kp import _ffi
from support import fixture

URLS = "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"
BUNDLES = "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"


class WithoutProxy(support.TestCase):
    def test_is_the_base(self):
        base = {"HTTPS_PROXY": "http://other", "A": "\udcff"}
        made = kp.env(base)
        self.assertEqual(made, base)
        self.assertIsNot(made, base)

    def test_is_the_hosts_by_default(self):
        self.assertEqual(kp.env(), dict(os.environ))

    def test_empty_base_is_empty(self):
        self.assertEqual(kp.env({}), {})


class WithProxy(support.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.proxy = kp.spawn(fixture("serve"))

    @classmethod
    def tearDownClass(cls):
        cls.proxy.close()

    def test_empty_base_gives_the_proxy_alone(self):
        made = self.proxy.env({})
        expected = {name: self.proxy.url for name in URLS}
        expected["NO_PROXY"] = kp.DEFAULT_NO_PROXY
        expected.update({name.lower(): value for name, value in expected.items()})
        self.assertEqual(made, expected)

    def test_base_is_beneath(self):
        made = self.proxy.env({"A": "a=b", "https_proxy": "http://other", "B": "\udcff", "C": ""})
        self.assertEqual((made["A"], made["https_proxy"], made["B"], made["C"]),
                         ("a=b", self.proxy.url, "\udcff", ""))

    def test_base_is_os_environ_by_default(self):
        """As Python sees it, and not what the C library has."""
        with mock.patch.object(os, "environ", {"ONLY_HERE": "1"}):
            made = self.proxy.env()
        self.assertEqual(made["ONLY_HERE"], "1")
        self.assertNotIn("PATH", made)

    def test_serves_a_child(self):
        script = 'test "$https_proxy" = "$0"'
        subprocess.run(["sh", "-c", script, self.proxy.url], env=self.proxy.env(), check=True, timeout=60)

    def test_is_refused_what_is_no_environment(self):
        for base in {"A=B": "C"}, {"A": "a\0b"}, {"A\0": "a"}:
            with self.assertRaisesRegex(kp.InvalidError, "base"):
                self.proxy.env(base)
        with self.assertRaises(TypeError):
            self.proxy.env({"A": 1})

    def test_is_given_back_to_the_library(self):
        with mock.patch.object(_ffi.lib, "kp_env_free", wraps=_ffi.lib.kp_env_free) as free:
            self.proxy.env()
        self.assertTrue(free.call_args[0][0])

    def test_from_other_threads(self):
        made = []
        threads = [threading.Thread(target=lambda: made.append(self.proxy.env({}))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(made, [self.proxy.env({})] * 8)


class Options(support.TestCase):
    def test_no_proxy(self):
        for value in "", "a.example,b.example":
            with kp.spawn(fixture("serve"), no_proxy=value) as proxy:
                made = proxy.env({})
            self.assertEqual((made["NO_PROXY"], made["no_proxy"]), (value, value))

    def test_ca_bundle(self):
        with kp.spawn(fixture("serve"), ca_bundle="/ca.pem") as proxy:
            made = proxy.env({})
        self.assertEqual([made[name] for name in BUNDLES], ["/ca.pem"] * 4)

    def test_a_closed_proxy_has_none(self):
        """It must not be the base, which would lead the child around the proxy."""
        with kp.spawn(fixture("serve")) as proxy:
            pass
        with self.assertRaises(kp.StateError):
            proxy.env()

    def test_stays_true_while_the_proxy_is_down(self):
        with kp.spawn(fixture("serve")) as proxy:
            made = proxy.env({})
            proxy.stop()
            self.assertEqual(proxy.env({}), made)


if __name__ == "__main__":
    unittest.main()
