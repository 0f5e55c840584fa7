#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hosts in Python that wait for a proxy to listen; readiness.py runs them.

    host.py spawn|asyncio LISTENER STAMP

What they read and answer is as in host.c, whose meter has to be preloaded.
"""

import asyncio
import ctypes
import mmap
import os
import sys
import time

import kp

PATIENCE_S = 10


class Meter(ctypes.Structure):
    """struct meter of meter.h."""

    _fields_ = [(name, ctypes.c_int64)
                for name in ("spawn_begun", "spawn_ended", "spawn_ended_cpu", "refused", "asked_cpu")]


class Bench:
    def __init__(self, listener, stamp):
        self.listener, self.path = listener, stamp
        self.meter = Meter.in_dll(ctypes.CDLL(None), "bench_meter")
        with open(stamp, "rb") as file:
            self.memory = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("q")

    def command(self, delay):
        self.meter.refused = 0
        return [self.listener, delay, self.path]

    def read_stamp(self):
        """Before the proxy is stopped: the host may know before it has got around to this."""
        limit = self.ready + PATIENCE_S * 1_000_000_000
        while not self.memory[0] and time.monotonic_ns() < limit:
            time.sleep(0)
        if not self.memory[0]:
            raise TimeoutError("no stamp")
        return self.memory[0]

    def note_ready(self):
        self.ready = time.monotonic_ns()
        self.listened = self.read_stamp()

    def report(self):
        print(self.ready - self.listened, self.listened - self.meter.spawn_begun,
              self.ready - self.meter.spawn_ended, self.meter.asked_cpu - self.meter.spawn_ended_cpu,
              self.meter.refused, flush=True)


def run_spawn(bench, delays):
    for delay in delays:
        with kp.spawn(bench.command(delay)):
            bench.note_ready()
        bench.report()


async def run_asyncio(bench, delays):
    for delay in delays:
        async with kp.spawn_async(bench.command(delay)):
            bench.note_ready()
        bench.report()


def main():
    way, listener, stamp = sys.argv[1:]
    os.environ.pop("LD_PRELOAD", None)  # for this process alone, not for the proxies
    bench = Bench(listener, stamp)
    delays = map(str.strip, sys.stdin)
    if way == "asyncio":
        asyncio.run(run_asyncio(bench, delays))
    else:
        run_spawn(bench, delays)


main()
