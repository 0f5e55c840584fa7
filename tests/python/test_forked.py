# SPDX-License-Identifier: Apache-2.0
"""Workers that a host forks, and that live longer than it or its proxy."""

import unittest

import support
from support import FIXTURE

SPAWN = "proxy = kp.spawn([sys.argv[1], 'serve'], stop_grace=0.5)"
WORKER = """
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
print(proxy.pid, worker.pid, flush=True)
"""
START = "import asyncio, multiprocessing, os, signal, subprocess, sys, threading, time, kp\n"


class Worker(support.TestCase):
    """It is idle, and knows nothing of the proxy."""

    def assert_the_proxy_dies_with(self, script):
        """The host prints the pids of its proxy, of a worker, and of itself if it is a child."""
        host = self.host(START + script, FIXTURE)
        line = host.stdout.readline()
        self.assertTrue(line, "the host has failed")
        proxy, worker, *hosts = map(int, line.split())
        self.addCleanup(self.kill, worker)
        self.assertTrue(support.exists(proxy))
        for pid in hosts or [host.pid]:
            self.kill(pid)
        self.assert_gone(proxy)
        self.assertTrue(support.exists(worker))

    def test_of_multiprocessing(self):
        self.assert_the_proxy_dies_with(SPAWN + WORKER + "time.sleep(60)")

    def test_of_os_fork(self):
        self.assert_the_proxy_dies_with(SPAWN + """
worker = os.fork()
if worker == 0:
    time.sleep(60)
    os._exit(0)
print(proxy.pid, worker, flush=True)
time.sleep(60)
""")

    def test_of_an_asynchronous_host(self):
        body = WORKER.replace("\n", "\n    ")
        self.assert_the_proxy_dies_with(f"""
async def main():
    proxy = await kp.spawn_async([sys.argv[1], 'serve'], stop_grace=0.5)
    {body}
    await asyncio.sleep(60)
asyncio.run(main())
""")

    def test_of_a_host_that_was_forked_itself(self):
        self.assert_the_proxy_dies_with(f"""
outer = kp.spawn([sys.argv[1], 'serve'])
if os.fork() == 0:
    {SPAWN}
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    print(proxy.pid, worker, os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
""")

    def test_keeps_neither_port_nor_log(self):
        script = START + """
import select, socket
reader, writer = os.pipe()
with kp.spawn([sys.argv[1], "serve"], log=writer) as proxy:
    worker = os.fork()
    if worker == 0:
        os.close(writer)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.close(writer)
    os.waitpid(worker, os.WUNTRACED)
try:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(5000)[0][1] & select.POLLHUP
    socket.socket().bind(("127.0.0.1", proxy.port))
finally:
    os.kill(worker, signal.SIGKILL)
print("well")
"""
        status, output, errors = self.run_host(script, FIXTURE)
        self.assertEqual((status, output), (0, "well\n"), errors)


class Copy(support.TestCase):
    """What the child does with it, once it has let go."""

    def run_script(self, script):
        status, output, errors = self.run_host(START + script, FIXTURE)
        self.assertEqual((status, output, errors), (0, "well\n", ""))

    def test_can_be_closed_and_signals_nobody(self):
        self.run_script(SPAWN + """
worker = os.fork()
if worker == 0:
    assert proxy.alive and proxy.env({})["HTTP_PROXY"] == proxy.url
    numbers = [os.dup(0) for _ in range(40)]
    proxy.close()
    for number in numbers:
        os.close(number)
    os._exit(0)
assert os.waitpid(worker, 0)[1] == 0
assert proxy.alive
proxy.restart()
proxy.close()
print("well")
""")

    def test_of_what_is_closed_or_was_never_started(self):
        self.run_script(SPAWN + """
proxy.close()
unused = kp.spawn_async([sys.argv[1], "serve"])
worker = os.fork()
if worker == 0:
    os._exit(0)
assert os.waitpid(worker, 0)[1] == 0
print("well")
""")

    def test_in_a_preexec_fn(self):
        self.run_script(SPAWN + """
subprocess.run(["true"], check=True, preexec_fn=lambda: None)
assert proxy.alive
proxy.close()
print("well")
""")

    def test_made_by_another_thread_meanwhile(self):
        self.run_script("""
done = threading.Event()
def live():
    while not done.is_set():
        with kp.spawn([sys.argv[1], "serve"]):
            pass
thread = threading.Thread(target=live)
thread.start()
try:
    for _ in range(50):
        worker = os.fork()
        if worker == 0:
            os._exit(0)
        assert os.waitpid(worker, 0)[1] == 0
finally:
    done.set()
    thread.join()
print("well")
""")


if __name__ == "__main__":
    unittest.main()
