# SPDX-License-Identifier: Apache-2.0
"""The common teardown really sees what is left."""

import subprocess
import unittest
import warnings

import support


class Leftovers(unittest.TestCase):
    def problems(self, body):
        class Inner(support.TestCase):
            def runTest(self):
                body()

        result = unittest.TestResult()
        Inner().run(result)
        return [text for _, text in result.failures + result.errors]

    def test_nothing_is_fine(self):
        self.assertEqual(self.problems(lambda: None), [])

    def test_a_descriptor(self):
        kept = []
        problems = self.problems(lambda: kept.append(open("/dev/null", "rb")))
        kept.pop().close()
        self.assertRegex("".join(problems), "Items in the first set but not the second")

    def test_a_child(self):
        kept = []
        problems = self.problems(lambda: kept.append(subprocess.Popen(["sleep", "60"])))
        child = kept.pop()
        self.assertRegex("".join(problems), "children are left")
        self.assertFalse(support.exists(child.pid), "it is killed too")
        child.wait()

    def test_a_warning(self):
        problems = self.problems(lambda: warnings.warn("forgotten", ResourceWarning))
        self.assertRegex("".join(problems), "forgotten")


if __name__ == "__main__":
    unittest.main()
