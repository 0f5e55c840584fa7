#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the real proxies and prints the README's table of them, as Markdown.

    table.py BUILD_FOLDER [--rounds N] [PROXY]...

Each proxy is started through the library and stopped again N times idle (3 by default), N
times with a tunnel open, and N times with KP_SPEC_PROBE_HTTP; the medians are printed.
What is not installed is named below the table. No root is needed.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile

import processes
import proxies
import tunnel
from host import NAME, Host, Stage

GRACE_MS = 2000  # the library's default
HEAD = (
    "proxy (run as)",
    "ready after",
    "and asked by HTTP",
    "whose listener",
    "stop, idle",
    "stop, tunnel open",
)


def duration(microseconds):
    milliseconds = microseconds / 1000
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def median(found):
    return duration(statistics.median(found)) if found else "–"


def how_stopped(stops):
    """The exit of the one in the middle, and when."""
    if not stops:
        return "–"
    stop = sorted(stops, key=lambda each: each.microseconds)[len(stops) // 2]
    if stop.microseconds >= GRACE_MS * 1000:
        return f"**SIGKILL after {GRACE_MS // 1000} s**"
    end = f"exit {stop.exit_code}"
    if stop.term_signal != 0:
        end = signal.Signals(stop.term_signal).name
    return f"{end}, {duration(stop.microseconds)}"


def guard_of(host):
    """It leads the group, and is the driver's child beside the proxy."""
    return next(pid for pid in processes.children(host.process.pid) if pid != host.pid)


def owner(host):
    """Whose the listener is, searched for in the library's order."""
    every = processes.every_process()
    group = guard_of(host)
    holders = processes.owners(host.port, every)
    inside = [pid for pid in holders if every[pid].group == group]
    if host.pid in holders:
        return "the proxy itself" if host.pid in inside else "the proxy itself, outside the group"
    if any(every[pid].parent == host.pid for pid in inside):
        return "a child of it"
    if inside:
        return "another member of the group"
    below = processes.descendants(host.pid)
    return "a descendant outside the group" if set(holders) & set(below) else "unknown"


class Row:
    def __init__(self, proxy, driver, rounds):
        self.proxy, self.driver = proxy, driver
        self.owners = set()
        with tempfile.TemporaryDirectory(prefix="kp-real-cache-") as cache:
            self.cache = cache
            idle = [self.measure(self.look) for _ in range(rounds)]
            busy = [self.measure(self.open_tunnel) for _ in range(rounds)]
            asked = [self.measure(self.look, True) for _ in range(rounds * self.can_be_asked())]
        self.cells = (
            proxy.title,
            median([ready for ready, _ in idle + busy]),
            median([ready for ready, _ in asked]),
            " or ".join(sorted(self.owners)),
            how_stopped([stop for _, stop in idle]),
            how_stopped([stop for _, stop in busy]),
        )

    def can_be_asked(self):
        return self.proxy.speaks == "http" and self.proxy.answers_probe

    def measure(self, use, probe_http=False):
        """(microseconds to READY, how it stopped)"""
        with Stage(self.proxy, self.cache) as stage:
            host = Host(stage, self.driver, GRACE_MS, probe_http)
            stage.callback(host.close)
            use(stage, host)
            stopped = host.stop()
            if host.finish() != 0:
                raise RuntimeError("the driver has failed")
            return host.microseconds, stopped

    def look(self, _stage, host):
        self.owners.add(owner(host))

    def open_tunnel(self, stage, host):
        origin = tunnel.Origin()
        stage.callback(origin.close)
        connection = tunnel.open_tunnel(self.proxy, host.port, NAME, origin.port)
        stage.callback(connection.close)


def line(cells):
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build_folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("proxies", nargs="*", metavar="PROXY", default=list(proxies.PROXIES))
    options = parser.parse_intermixed_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left
    driver = os.path.abspath(f"{options.build_folder}/tests/real/real-driver")
    processes.adopt_orphans()
    missing = {}
    print(line(HEAD), line(["---"] * len(HEAD)), sep="\n", flush=True)
    for name in options.proxies:
        proxy = proxies.PROXIES[name]
        if proxy.missing():
            missing[proxy.title] = proxy.missing()
        else:
            print(line(Row(proxy, driver, options.rounds).cells), flush=True)
    for title, needs in missing.items():
        print(f"\nNot measured: {title}, for want of {', '.join(needs)}.")


if __name__ == "__main__":
    main()
