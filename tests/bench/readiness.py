#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How late does a host know that its proxy listens, and what does the waiting cost it?

    readiness.py [--start-ups MS,...] [--effort FACTOR] [--hosts NAME,...] BUILD

BUILD is Meson's build folder, with tests and benchmarks built. One run starts the same
proxy by each host, over and over, with start-up times spread at random by half, and
prints a table of medians:

late    microseconds from the return of the proxy's listen() to the host's knowing of it,
        with the 90th percentile beside it
CPU     microseconds of the host's own time while it waits: from the proxy's spawn to the connect
        that is accepted
probes  connects in that time

The budgets of the blocking call: late by 150 microseconds and 1 % of the proxy's
start-up; CPU of 1 ms and 2 % of the wait, or what as many pauses and refused connects
cost a plain program in this run. The hosts with a loop: late by 1.5 times the blocking
call. The exit status is 1 where one of these is exceeded.

The other hosts are for comparison: the same call in Python, the usual loop (pauses
that double from 20 to 200 ms), and an oracle (no pause, and so a whole core).
"""

import argparse
import concurrent.futures
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 30
SPREAD = 0.5

LATE_NS, LATE_SHARE = 150_000, 0.01
CPU_NS, CPU_SHARE = 1_000_000, 0.02
LOOP_RATIO = 1.5
PRICED_PROBES = 100

HOSTS = {
    "kp_spawn": ["C", "spawn"],
    "epoll, edge-triggered": ["C", "epoll"],
    "asyncio": ["Python", "asyncio"],
    "kp.spawn in Python": ["Python", "spawn"],
    "usual loop": ["C", "usual"],
    "oracle": ["C", "oracle"],
}
BLOCKING, ORACLE = "kp_spawn", "oracle"
LOOPS = ("epoll, edge-triggered", "asyncio")

# Of the long waits, which leave the machine idle, some go on at once.
ROUNDS = {0: (150, 1), 5: (150, 1), 50: (50, 3), 300: (35, 4), 1000: (25, 5)}


@dataclass
class Sample:
    late: float
    startup: float
    wait: float
    cpu: float
    refused: float
    price: float = 0.0  # of as many probes by a plain program; of the blocking call alone

    @property
    def probes(self):
        return self.refused + 1

    @property
    def late_budget(self):
        return LATE_NS + LATE_SHARE * self.startup

    @property
    def cpu_budget(self):
        return max(CPU_NS + CPU_SHARE * self.wait, self.price)


class Host:
    """A process that answers each line with one."""

    def __init__(self, command, env=None):
        self.command = command
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def ask(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        readable = select.select([self.process.stdout], [], [], PATIENCE_S)[0]
        line = self.process.stdout.readline() if readable else b""
        if not line:
            raise RuntimeError(f"no answer from {self.command}")
        return [int(word) for word in line.split()]

    def close(self):
        with self.process:
            self.process.kill()


class Lane:
    """One host of each kind, one of which runs at a time."""

    def __init__(self, build, folder, names):
        self.programs = os.path.join(build, "tests", "bench")
        self.build, self.hosts = build, {}
        self.price = Host([os.path.join(self.programs, "bench-host"), "price"])
        for name in names:
            stamp = tempfile.NamedTemporaryFile(dir=folder, delete=False)
            with stamp:
                stamp.write(bytes(8))
            self.hosts[name] = self.open(*HOSTS[name], stamp.name)
            self.hosts[name].ask(0)  # the first is slower than all others

    def open(self, language, way, stamp):
        arguments = [way, os.path.join(self.programs, "bench-listener"), stamp]
        if language == "C":
            return Host([os.path.join(self.programs, "bench-host"), *arguments])
        env = {
            **os.environ,
            "LD_PRELOAD": os.path.join(self.programs, "libbench-meter.so"),
            "LIBKP": os.path.join(self.build, "lib", "libkp.so.0"),
            "PYTHONPATH": os.path.join(HERE, "..", "..", "bindings", "python"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return Host([sys.executable, os.path.join(HERE, "host.py"), *arguments], env)

    def sample(self, name, delay_us):
        sample = Sample(*self.hosts[name].ask(delay_us))
        if name == BLOCKING:
            count = min(int(sample.probes), PRICED_PROBES)
            cost = self.price.ask(count, int(sample.wait / sample.probes))[0]
            sample.price = cost * sample.probes / count
        return sample

    def run(self, names, delay_us):
        """The same start-up for all, in an order of its own each time."""
        return {name: self.sample(name, delay_us)
                for name in random.sample(names, len(names))}

    def close(self):
        for host in [self.price, *self.hosts.values()]:
            host.close()


def measure(lanes, names, startup_ms, rounds):
    """A list of samples for each host."""
    samples = {name: [] for name in names}
    quiet = [name for name in names if name != ORACLE]

    def spread():
        return int(random.uniform(1 - SPREAD, 1 + SPREAD) * startup_ms * 1000)

    def run(lane):
        return lane.run(quiet, spread())

    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        for _ in range(rounds):
            for results in pool.map(run, lanes):
                for name, sample in results.items():
                    samples[name].append(sample)
            if ORACLE in names:  # alone, as it takes a core
                samples[ORACLE].append(lanes[0].sample(ORACLE, spread()))
    return samples


# ---- The table ----

@dataclass
class Row:
    startup: str
    name: str
    samples: list
    late_limit: float = 0.0
    cpu_limit: float = 0.0
    notes: list = field(default_factory=list)

    def median(self, what):
        return statistics.median(getattr(sample, what) for sample in self.samples)

    def p90(self):
        late = sorted(sample.late for sample in self.samples)
        return late[int(0.9 * (len(late) - 1))]

    def exceeds(self):
        late = self.late_limit and self.median("late") > self.late_limit
        cpu = self.cpu_limit and self.median("cpu") > self.cpu_limit
        return bool(late or cpu)


def rows_of(startup, samples):
    rows = {name: Row(startup, name, found) for name, found in samples.items()}
    blocking = rows.get(BLOCKING)
    if blocking:
        blocking.late_limit = blocking.median("late_budget")
        blocking.cpu_limit = blocking.median("cpu_budget")
    for name in LOOPS:
        if name in rows and blocking:
            rows[name].late_limit = LOOP_RATIO * blocking.median("late")
    for name, row in rows.items():
        if blocking and row is not blocking:
            row.notes.append("%.2f x kp_spawn" % (row.median("late") / blocking.median("late")))
    if "asyncio" in rows and "kp.spawn in Python" in rows:
        ratio = rows["asyncio"].median("late") / rows["kp.spawn in Python"].median("late")
        rows["asyncio"].notes.append("%.2f x kp.spawn in Python" % ratio)
    if blocking:
        price = blocking.median("price") / blocking.median("probes") / 1000
        blocking.notes.append("a plain program's probe: %.1f us" % price)
    return list(rows.values())


FORMAT = "%-8s %-22s %8s %8s %8s %-8s %8s %8s %-8s %7s %4s  %s"


def verdict(value, limit):
    return ("holds" if value <= limit else "EXCEEDS") if limit else ""


def show(row):
    def us(ns):
        return "%.0f" % (ns / 1000)

    late, cpu = row.median("late"), row.median("cpu")
    print(FORMAT % (
        row.startup, row.name, us(late), us(row.p90()),
        us(row.late_limit) if row.late_limit else "", verdict(late, row.late_limit),
        us(cpu), us(row.cpu_limit) if row.cpu_limit else "", verdict(cpu, row.cpu_limit),
        "%.0f" % row.median("probes"), len(row.samples), "; ".join(row.notes)), flush=True)


def numbers(text):
    return [int(word) for word in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start-ups", type=numbers, default=list(ROUNDS), metavar="MS,...",
                        help="default: %s" % ",".join(map(str, ROUNDS)))
    parser.add_argument("--effort", type=float, default=1.0, metavar="FACTOR",
                        help="more or fewer rounds")
    parser.add_argument("--hosts", type=lambda text: text.split(","), default=list(HOSTS),
                        metavar="NAME,...", help="default: all; by their first words")
    parser.add_argument("build", metavar="BUILD")
    given = parser.parse_args()
    given.build = os.path.abspath(given.build)  # for LD_PRELOAD, too
    given.hosts = [name for name in HOSTS if name.startswith(tuple(given.hosts))]
    return given


def main():
    given = arguments()
    print(FORMAT % ("start-up", "host", "late us", "p90", "limit", "", "CPU us", "limit", "",
                    "probes", "n", ""))
    exceeded = 0
    lanes = []
    with tempfile.TemporaryDirectory(prefix="kp-bench-") as folder:
        try:
            for startup in given.start_ups:
                rounds, width = ROUNDS[min(ROUNDS, key=lambda known: abs(known - startup))]
                while len(lanes) < width:
                    lanes.append(Lane(given.build, folder, given.hosts))
                samples = measure(lanes[:width], given.hosts, startup,
                                  max(1, round(rounds * given.effort)))
                for row in rows_of("%d ms" % startup, samples):
                    show(row)
                    exceeded += row.exceeds()
        finally:
            for lane in lanes:
                lane.close()
    print("load average at the end: %.1f of %d processors" % (os.getloadavg()[0], os.cpu_count()))
    print("%d of the budgets exceeded" % exceeded if exceeded else "all budgets hold")
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
