"""Stops a process while it writes to a SQLite file, and lets it go on when standard input ends: `... FILE PROCESS`.

Says "stopped" once it is certain. How long a lock is held tells nothing on a machine whose disk is busy; Linux tells who
holds which lock.
"""

import os
import signal
import sys
import time
from pathlib import Path

DEADLINE = time.monotonic() + 30
PAUSE = 0.002

# SQLite's lock for writing in WAL mode is on this byte of the file beside the database whose name ends so.
SHARED_MEMORY = "-shm"
WRITE_LOCK = 120


def holds_write_lock(file, process):
    """Whether a line such as `7: POSIX  ADVISORY  WRITE 4711 fd:00:815 120 120` is there."""
    inode = os.stat(file + SHARED_MEMORY).st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        # A process that waits for a lock has an arrow in its line.
        if "->" in line:
            continue
        _, _, _, mode, holder, locked, first, last = line.split()
        is_file = int(locked.rsplit(":", 1)[1]) == inode and int(holder) == process
        if is_file and mode == "WRITE" and int(first) <= WRITE_LOCK and (last == "EOF" or int(last) >= WRITE_LOCK):
            return True
    return False


def stop(process):
    """That the signal is sent does not mean that every thread has stopped; Linux tells of each."""
    os.kill(process, signal.SIGSTOP)
    while any("(stopped)" not in status.read_text() for status in Path("/proc").glob(f"{process}/task/*/status")):
        pass


def stop_inside_write(file, process):
    while time.monotonic() < DEADLINE:
        if holds_write_lock(file, process):
            stop(process)
            if holds_write_lock(file, process):
                return
            os.kill(process, signal.SIGCONT)
        time.sleep(PAUSE)
    sys.exit(f"process {process} does not hold the write lock")


def main(file, process):
    # The process must go on, or it could never end, whatever becomes of the test.
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        stop_inside_write(file, process)
        print("stopped", flush=True)
        sys.stdin.read()
    finally:
        try:
            os.kill(process, signal.SIGCONT)
        except ProcessLookupError:
            pass


main(sys.argv[1], int(sys.argv[2]))
