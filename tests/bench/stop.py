#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What do a start and a stop cost beside posix_spawn, kill and waitpid?

    stop.py [--effort FACTOR] BUILD

BUILD is Meson's build folder, with benchmarks built. The same proxy, which is prompt and has no
children, is started and stopped in one run in all ways, in an order of its own each time:

bare    posix_spawn; kill and waitpid
kp      kp_start with KP_SPEC_NO_GUARD; kp_handle_free
guard   kp_start; kp_handle_free

One line for each measure, its fields separated by tabs: what, value, limit, verdict, and the medians
that it comes from, in microseconds. All limits but one are ratios of medians. The exit status is 1
where one is exceeded. It wants a machine that does nothing else.
"""

import argparse
import contextlib
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile

PATIENCE_S = 120
WAYS = ("bare", "kp", "guard")

START_LIMIT = {"kp": 1.25, "guard": 4.0}
STOP_LIMIT = {"kp": 1.5}
GUARDED_STOP_NS = 300_000
MANY_LIMIT = 1.3
CROWD_LIMIT = 1.2  # of what should be 1
FEW, MANY = 100, 3000
BYTES_LIMIT = 1024
FDS = {"kp": 3, "guard": 5}
LOOP_FDS = 2


class Program:
    """A process that answers each line with one."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self):
        readable = select.select([self.process.stdout], [], [], PATIENCE_S)[0]
        line = self.process.stdout.readline() if readable else b""
        if not line:
            raise RuntimeError(f"no answer from {self.command}")
        return line.split()

    def ask(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return [int(word) for word in self.read()]

    def close(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


class Bench:
    def __init__(self, build, effort):
        self.folder = os.path.join(build, "tests", "bench")
        self.effort = effort
        self.exceeded = 0

    def program(self, *words):
        return contextlib.closing(Program([os.path.join(self.folder, "bench-stop"), *map(str, words)]))

    @contextlib.contextmanager
    def host(self, ballast_mb=0):
        with tempfile.TemporaryDirectory(prefix="kp-bench-") as folder:
            listener = os.path.join(self.folder, "bench-listener")
            with self.program("host", ballast_mb, listener, folder) as host:
                for way in WAYS:
                    host.ask(way, 1)  # the first is slower than all others
                yield host

    @contextlib.contextmanager
    def crowd(self, count):
        with self.program("crowd", count) as crowd:
            crowd.read()
            yield

    def rounds(self, count):
        return range(max(1, round(count * self.effort)))

    def tell(self, what, value, limit=None, medians=()):
        holds = limit is None or value <= limit
        self.exceeded += not holds
        print(what, "%.2f" % value, "" if limit is None else "%g" % limit,
              "" if limit is None else "holds" if holds else "EXCEEDS",
              *(f"{name}={value / 1000:.1f}" for name, value in medians), sep="\t", flush=True)


def median(samples, way, part):
    return statistics.median(sample[part] for sample in samples[way])


def sample(host, samples, count=1, ways=WAYS):
    for way in random.sample(ways, len(ways)):
        samples.setdefault(way, []).append(host.ask(way, count))


def measure_one(bench, name, ballast_mb):
    """One proxy at a time."""
    samples = {}
    with bench.host(ballast_mb) as host:
        for _ in bench.rounds(300):
            sample(host, samples)
    for part, what in enumerate(("start", "stop")):
        bare = median(samples, "bare", part)
        for way in WAYS[1:]:
            own = median(samples, way, part)
            limit = START_LIMIT[way] if what == "start" else STOP_LIMIT.get(way)
            bench.tell(f"{what} {way}, {name}", own / bare, limit, [("bare", bare), (way, own)])
            if what == "stop" and way == "guard":
                bench.tell(f"{what} {way}, {name}: microseconds", own / 1000, GUARDED_STOP_NS / 1000)


def measure_beside(bench, count, repeats, what):
    """Stops beside few and many other processes, in turns."""
    few, many = {}, {}
    ways = WAYS if count == 1 else WAYS[:2]
    with bench.host() as host:
        for _ in bench.rounds(5):
            for crowd, samples in ((FEW, few), (MANY, many)):
                with bench.crowd(crowd):
                    for _ in range(repeats):
                        sample(host, samples, count, ways)
    for way in ways:
        short, long = median(few, way, 1), median(many, way, 1)
        bench.tell(f"stop {way}, {what}: {MANY} other processes to {FEW}", long / short,
                   None if way == "bare" else CROWD_LIMIT, [(str(FEW), short), (str(MANY), long)])
    return few


def tell_many(bench, samples, count):
    for part, what in ((0, "start"), (1, "stop")):
        bare, own = median(samples, "bare", part), median(samples, "kp", part)
        bench.tell(f"{what} kp, {count} from one thread", own / bare, None, [("bare", bare), ("kp", own)])
    bare, own = (statistics.median(map(sum, samples[way])) for way in ("bare", "kp"))
    bench.tell(f"start and stop kp, {count} from one thread", own / bare, MANY_LIMIT,
               [("bare", bare), ("kp", own)])


def measure_costs(bench):
    with bench.host() as host:
        for way in WAYS[1:]:
            size, fds, loop_fds = (value / 1000 for value in host.ask("cost", way, 64))
            bench.tell(f"bytes of a ready handle, {way}", size, BYTES_LIMIT)
            bench.tell(f"descriptors of a ready handle, {way}", fds, FDS[way])
            bench.tell(f"descriptors more with kp_handle_fd, {way}", loop_fds - fds, LOOP_FDS)


def ballast_mb():
    """Up to 4 GiB of what is to be had; 0: less than 1 GiB."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":") for line in file)
    free = int(fields["MemAvailable"].split()[0]) // 1024 // 2
    return 0 if free < 1024 else min(free, 4096) // 1024 * 1024


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effort", type=float, default=1.0, metavar="FACTOR",
                        help="more or fewer rounds")
    parser.add_argument("build", metavar="BUILD")
    given = parser.parse_args()
    bench = Bench(os.path.abspath(given.build), given.effort)
    measure_one(bench, "a small host", 0)
    size = ballast_mb()
    if size:
        measure_one(bench, f"a host of {size // 1024} GiB", size)
    else:
        print("left out: a large host, for want of memory")
    measure_beside(bench, 1, 40, "one")
    samples = measure_beside(bench, 1000, 1, "1000 from one thread")
    tell_many(bench, samples, 1000)
    measure_costs(bench)
    print("load average at the end: %.1f of %d processors" % (os.getloadavg()[0], os.cpu_count()))
    return 1 if bench.exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
