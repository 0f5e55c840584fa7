# SPDX-License-Identifier: Apache-2.0
"""The table of the branches of lib/ that the tests have taken.

    python3 tests/coverage/coverage.py BUILD...

Each BUILD is a folder that was set up with CC=gcc, -Dbuildtype=debug and -Db_coverage=true, and whose
tests have run since; what gcov knows of all of them is added up. It fails where a branch was neither
taken nor is listed in untaken.txt, which says why not, and where one of that list was taken, but for
those that may be by chance, or is not there, as after a change of its line. Lines may move.

A branch is what gcov counts as one, in code that was not optimized: each condition has two, and the
compiler makes some of its own. It is known by its number among those of its line.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Iterable, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LISTED = Path(__file__).with_name("untaken.txt")
MOST_LISTED = 0.02  # of all branches


class Line(NamedTuple):
    """One that is still itself when its number has changed."""

    file: str
    function: str
    text: str  # of several that read alike in one function "text #2" is the second


class Branch(NamedTuple):
    line: Line
    number: int
    of: int


def name_of(function: dict[str, Any]) -> str:
    """Without namespaces, arguments and the like."""
    name = function["demangled_name"].replace("(anonymous namespace)::", "")
    name = re.sub("[<(].*", "", name)
    return re.sub("^.* (?=kpi::)|kpi::|sys::", "", name)


class Coverage:
    """How often each branch of lib/ was taken, in all builds together."""

    def __init__(self) -> None:
        self.counts: dict[Line, list[int]] = {}
        self.numbers: dict[Line, int] = {}
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.sources: dict[str, list[str]] = {}

    def add_build(self, build: Path) -> None:
        notes = sorted(str(path) for path in build.resolve().rglob("*.cpp.gcno"))
        if not notes:
            raise SystemExit(f"{build} was not built with -Db_coverage=true")
        told = subprocess.run(
            ["gcov", "--json-format", "--branch-probabilities", "--stdout", *notes],
            capture_output=True,
            check=False,
        )
        if told.returncode != 0:  # as after a build since the run
            lines = told.stderr.decode().splitlines()
            raise SystemExit("\n".join(line for line in lines if "cannot open" not in line))
        for unit in map(json.loads, told.stdout.splitlines()):
            for file in unit["files"]:
                path = Path(os.path.normpath(Path(unit["current_working_directory"], file["file"])))
                if path.is_relative_to(ROOT / "lib"):
                    self.add_file(str(path.relative_to(ROOT)), file)

    def add_file(self, file: str, told: dict[str, Any]) -> None:
        functions = {function["name"]: function for function in told["functions"]}
        for line in told["lines"]:
            number = line["line_number"]
            self.lines[file].add(number)
            if line["branches"]:
                key = self.identify(file, functions[line["function_name"]], number)
                self.numbers[key] = number
                self.add_counts(key, [branch["count"] for branch in line["branches"]])

    def identify(self, file: str, function: dict[str, Any], number: int) -> Line:
        if file not in self.sources:
            text = (ROOT / file).read_text(encoding="utf-8")
            self.sources[file] = [""] + [line.strip() for line in text.splitlines()]
        source = self.sources[file]
        nth = source[function["start_line"] : number + 1].count(source[number])
        return Line(file, name_of(function), source[number] + (f" #{nth}" if nth > 1 else ""))

    def add_counts(self, key: Line, counts: list[int]) -> None:
        """Instances of one template, and objects that share an inline function, are one."""
        known = self.counts.setdefault(key, [0] * len(counts))
        if len(known) != len(counts):
            raise SystemExit(f"{key}: {len(known)} branches, and {len(counts)} elsewhere")
        self.counts[key] = [a + b for a, b in zip(known, counts)]

    def branches(self, taken: bool) -> Iterable[Branch]:
        for line, counts in self.counts.items():
            for number, count in enumerate(counts, 1):
                if taken == (count > 0):
                    yield Branch(line, number, len(counts))


class Listed(NamedTuple):
    all: set[Branch]
    by_chance: set[Branch]  # a race, which some runs win


def read_list(path: Path) -> Listed:
    """Blocks between empty lines: file and function; line; "1 3 of 4:" and the reason."""
    listed = Listed(set(), set())
    for block in re.split(r"\n{2,}", path.read_text(encoding="utf-8")):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        found = re.fullmatch(r"([\d ]+) of (\d+)(, or by chance)?: .+", " ".join(lines[2:]))
        if found is None or lines[0].count(" ") == 0:
            raise SystemExit(f"{path}: not understood:\n{block}")
        file, function = lines[0].split(" ", 1)
        line = Line(file, function, lines[1].strip())
        branches = {Branch(line, int(number), int(found[2])) for number in found[1].split()}
        listed.all.update(branches)
        if found[3]:
            listed.by_chance.update(branches)
    return listed


def print_table(coverage: Coverage, taken: set[Branch], listed: set[Branch]) -> None:
    names = sorted(coverage.lines)
    branches = taken | set(coverage.branches(taken=False))
    print(f"{'':34}{'lines':>8}{'branches':>10}{'taken':>8}{'listed':>8}{'missing':>9}")
    for name in [*names, ""]:
        mine = {branch for branch in branches if branch.line.file.startswith(name)}
        lines = sum(len(coverage.lines[other]) for other in names if other.startswith(name))
        missing = mine - taken - listed
        print(
            f"{name or 'all':34}{lines:8}{len(mine):10}{len(mine & taken):8}"
            f"{len(mine & listed):8}{len(missing):9}"
        )


def print_branches(what: str, branches: set[Branch], coverage: Coverage) -> None:
    by_line: dict[Line, list[Branch]] = defaultdict(list)
    for branch in sorted(branches):
        by_line[branch.line].append(branch)
    for line, some in by_line.items():
        where = f"{line.file}:{coverage.numbers.get(line, '?')}"
        numbers = " ".join(str(branch.number) for branch in some)
        print(f"{where}: {line.function}: {numbers} of {some[0].of} {what}\n    {line.text}")


def main(builds: list[str]) -> int:
    coverage = Coverage()
    for build in builds:
        coverage.add_build(Path(build))
    taken = set(coverage.branches(taken=True))
    untaken = set(coverage.branches(taken=False))
    listed, by_chance = read_list(LISTED)
    problems = {
        "not taken": untaken - listed,
        "listed, but taken": taken & (listed - by_chance),
        "listed, but not there": listed - taken - untaken,
    }
    for what, branches in problems.items():
        print_branches(what, branches, coverage)
    print_table(coverage, taken, listed)
    share = len(listed) / len(taken | untaken)
    print(f"{share:.2%} of the branches are listed in {LISTED.relative_to(ROOT)}")
    return int(any(problems.values()) or share > MOST_LISTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else __doc__)
