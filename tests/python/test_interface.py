# SPDX-License-Identifier: Apache-2.0
"""The package agrees with kp.h and with the built library."""

import ctypes
import inspect
import os
import re
import shutil
import subprocess
import unittest

import kp
import support
from kp import _ffi

LIBRARY = os.environ["LIBKP"]
INCLUDE = os.environ["KP_INCLUDE"]

C_TYPES = {
    "void": None, "int": ctypes.c_int, "int64_t": ctypes.c_int64, "uint16_t": ctypes.c_uint16,
    "pid_t": _ffi.Pid, "kp_result": _ffi.Result, "kp_state": _ffi.State,
    "char*": ctypes.c_char_p, "char**": _ffi.Strings, "int*": ctypes.POINTER(ctypes.c_int),
    "kp_handle*": _ffi.Handle, "kp_handle**": ctypes.POINTER(_ffi.Handle),
    "kp_spec*": ctypes.POINTER(_ffi.Spec), "kp_error*": ctypes.POINTER(_ffi.ErrorStruct),
}


def header():
    with open(os.path.join(INCLUDE, "kp", "kp.h"), encoding="utf-8") as file:
        return file.read()


def constants(prefix):
    """The enumerators KP_<prefix><NAME> of the header."""
    found = re.findall(rf"\bKP_{prefix}(\w+) = ([-\d]+)(?: << (\d+))?", header())
    return {name: int(number) << int(shift or 0) for name, number, shift in found}


def macro(name):
    return re.search(rf"#define {name}(?:\s|\\)*\"([^\"]*)\"", header()).group(1)


class Functions(support.TestCase):
    @unittest.skipUnless(shutil.which("nm"), "there is no nm")
    def test_table_is_what_the_library_exports(self):
        done = subprocess.run(["nm", "-D", "--defined-only", "-P", LIBRARY],
                              check=True, stdout=subprocess.PIPE, universal_newlines=True)
        exported = {line.split()[0].partition("@")[0] for line in done.stdout.splitlines()
                    if line.split()[1] != "A"}
        self.assertEqual(exported, set(_ffi.FUNCTIONS))

    def test_table_is_what_the_header_declares(self):
        declared = re.findall(r"^KP_API ([^;(]*?)(kp_\w+)\((.*?)\);", header(), re.S | re.M)
        table = {}
        for result, name, parameters in declared:
            listed = [] if parameters == "void" else parameters.split(",")
            table[name] = C_TYPES[self.plain(result)], [C_TYPES[self.plain(each)] for each in listed]
        self.assertEqual(table, _ffi.FUNCTIONS)

    def plain(self, declaration):
        """The type alone: "char *const base[]" is "char**"."""
        words = declaration.replace("[]", "*").replace("*", " * ").split()
        kept = [word for word in words if word != "const"]
        stars = "*" * kept.count("*")
        return kept[0] + stars

    def test_types_are_set(self):
        for name, (restype, argtypes) in _ffi.FUNCTIONS.items():
            function = getattr(_ffi.lib, name)
            self.assertEqual((function.restype, function.argtypes), (restype, argtypes))

    def test_blocking_ones_are_in_the_table(self):
        self.assertLessEqual(_ffi.BLOCKING, set(_ffi.FUNCTIONS))


class Structs(support.TestCase):
    PROGRAM = """
        #include <kp/kp.h>
        #include <stdio.h>
        #define MEMBER(type, name) printf("%s %s %zu %zu\\n", #type, #name, \\
                                          offsetof(type, name), sizeof((type *)0)->name)
        int main(void)
        {
            printf("pid_t - 0 %zu\\n", sizeof(pid_t));
            SIZES
        }
    """

    def members(self, name, struct):
        return [(name, field, getattr(struct, field).offset, getattr(struct, field).size)
                for field, *_ in struct._fields_]

    def fields_in_header(self, name):
        body = re.search(rf"typedef struct {name} {{(.*?)}} {name};", header(), re.S).group(1)
        body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
        return re.findall(r"(\w+)(?:\[\d+\])?;", body)

    def test_no_field_is_missing(self):
        for name, struct in ("kp_spec", _ffi.Spec), ("kp_error", _ffi.ErrorStruct):
            self.assertEqual([field for field, *_ in struct._fields_], self.fields_in_header(name))

    @unittest.skipUnless(shutil.which("cc"), "there is no C compiler")
    def test_layout_is_the_compilers(self):
        expected = [("pid_t", "-", 0, ctypes.sizeof(_ffi.Pid))]
        statements = []
        for name, struct in ("kp_spec", _ffi.Spec), ("kp_error", _ffi.ErrorStruct):
            members = self.members(name, struct)
            expected += members + [(name, "-", 0, ctypes.sizeof(struct))]
            statements += [f"MEMBER({name}, {field});" for _, field, _, _ in members]
            statements += [f'printf("{name} - 0 %zu\\n", sizeof({name}));']
        self.assertEqual(self.printed_by(self.PROGRAM.replace("SIZES", "\n".join(statements))), expected)

    def printed_by(self, source):
        program = self.path("layout")
        subprocess.run(["cc", "-I", INCLUDE, "-x", "c", "-", "-o", program],
                       check=True, input=source, universal_newlines=True)
        printed = subprocess.run([program], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout
        return [(struct, field, int(offset), int(size))
                for struct, field, offset, size in map(str.split, printed.splitlines())]


class Constants(support.TestCase):
    def test_codes(self):
        self.assertEqual({each.name: int(each) for each in kp.Code}, constants("ERR_"))

    def test_states(self):
        self.assertEqual({each.name: int(each) for each in kp.State}, constants("STATE_"))

    def test_flags(self):
        in_header = constants("SPEC_")
        in_package = {name[len("SPEC_"):]: getattr(_ffi, name) for name in vars(_ffi) if name.startswith("SPEC_")}
        self.assertEqual(in_package, in_header)

    def test_strings(self):
        self.assertEqual(kp.PORT_ENV, macro("KP_PORT_ENV"))
        self.assertEqual(kp.DEFAULT_NO_PROXY, macro("KP_DEFAULT_NO_PROXY"))


class Package(support.TestCase):
    def test_version_is_the_librarys(self):
        library = ctypes.CDLL(LIBRARY)
        library.kp_version.restype = ctypes.c_char_p
        self.assertEqual(kp.__version__, library.kp_version().decode())
        self.assertEqual(kp.__version__, os.environ["KP_VERSION"])

    def test_all_that_is_public_is_documented(self):
        for name in kp.__all__:
            thing = getattr(kp, name)
            if not callable(thing):
                continue
            self.assertTrue(inspect.getdoc(thing), name)
            for member, value in vars(thing).items() if inspect.isclass(thing) else ():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    self.assertTrue(inspect.getdoc(value), f"{name}.{member}")

    def test_both_forms_take_the_same_arguments(self):
        for forms in (kp.spawn, kp.spawn_async), (kp.attach, kp.attach_async):
            parameters = [inspect.signature(each).parameters for each in forms]
            self.assertEqual(*map(dict, parameters))

    def test_spec_has_every_argument(self):
        """And the same defaults."""
        def defaults(function):
            return {name: each.default for name, each in inspect.signature(function).parameters.items()
                    if each.kind is each.KEYWORD_ONLY}

        spec = {name: each.default for name, each in inspect.signature(kp._spec.Spec).parameters.items()}
        self.assertEqual({"command": (), **defaults(kp.spawn), "attach": False}, spec)
        self.assertLessEqual(defaults(kp.attach).items(), spec.items())


class Loading(support.TestCase):
    SCRIPT = """
import kp
with open("/proc/self/maps") as maps:
    print({line.split()[5] for line in maps if "kp" in line and "r-x" in line}.pop())
"""

    def imported(self, **variables):
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("LIBKP", "LD_LIBRARY_PATH")}
        return self.run_host(self.SCRIPT, env={**environment, **variables})

    def copy_located_at(self, library):
        """A copy of the package that was installed with the library there."""
        folder = self.folder()
        shutil.copytree(os.path.dirname(kp.__file__), os.path.join(folder, "kp"),
                        ignore=shutil.ignore_patterns("__pycache__"))
        with open(os.path.join(folder, "kp", "_location.py"), "w", encoding="utf-8") as file:
            file.write(f"LIBRARY = {library!r}\n")
        return folder

    def test_variable_names_the_library(self):
        self.assertEqual(self.imported(LIBKP=LIBRARY)[:2], (0, os.path.realpath(LIBRARY) + "\n"))

    def test_variable_alone_counts(self):
        status, _, errors = self.imported(LIBKP="/no/such/library", LD_LIBRARY_PATH=os.path.dirname(LIBRARY))
        self.assertEqual(status, 1)
        self.assertRegex(errors, "ImportError: .*tried: /no/such/library")
        self.assertNotIn(_ffi.SONAME, errors)

    def test_installed_library_is_found_before_others(self):
        installed = shutil.copy(LIBRARY, self.path("installed"))
        done = self.imported(PYTHONPATH=self.copy_located_at(installed), LD_LIBRARY_PATH=os.path.dirname(LIBRARY))
        self.assertEqual(done[:2], (0, installed + "\n"))

    def test_loader_finds_it_where_it_was_not_installed(self):
        folder = self.folder()
        os.symlink(os.path.realpath(LIBRARY), os.path.join(folder, _ffi.SONAME))
        done = self.imported(PYTHONPATH=self.copy_located_at("/no/such/library"), LD_LIBRARY_PATH=folder)
        self.assertEqual(done[:2], (0, os.path.realpath(LIBRARY) + "\n"))

    def test_error_names_all_that_was_tried(self):
        status, _, errors = self.imported(PYTHONPATH=self.copy_located_at("/no/such/library"))
        if status == 0:
            self.skipTest("the library is installed on this machine")
        for tried in "/no/such/library", _ffi.SONAME, "LIBKP":
            self.assertIn(tried, errors)


if __name__ == "__main__":
    unittest.main()
