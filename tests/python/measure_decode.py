"""Runs `decode` once per path and tells what each run cost: exit code, megabytes, seconds, last line of output.

    python3 measure_decode.py BINARY < list of paths

One line per path, separated by tabs. A run that takes longer than a minute is ended and has the code -9.
"""

import os
import subprocess
import sys
import threading
import time

for path in sys.stdin.read().splitlines():
    start = time.monotonic()
    child = subprocess.Popen([sys.argv[1], "decode", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    timer = threading.Timer(60, child.kill)
    timer.start()
    output = child.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    timer.cancel()
    lines = output.splitlines()
    answer = lines[-1].replace(path, "", 1) if lines else ""
    print(os.waitstatus_to_exitcode(status), usage.ru_maxrss // 1024, round(time.monotonic() - start, 3), answer.strip(), path, sep="\t")
