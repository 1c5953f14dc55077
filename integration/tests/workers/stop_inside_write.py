"""Stops a process while it writes to a SQLite file, and lets it go on when standard input ends: `... FILE PROCESS`.

Says "stopped" once it is certain: while nothing but that process can hold the write lock for long, it is held for long.
"""

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

DEADLINE = time.monotonic() + 30
PROBES = 25
PAUSE = 0.01


def is_locked(connection):
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        return True
    connection.execute("ROLLBACK")
    return False


def stop(process):
    """That the signal is sent does not mean that every thread has stopped; Linux tells of each."""
    os.kill(process, signal.SIGSTOP)
    while any("(stopped)" not in status.read_text() for status in Path("/proc").glob(f"{process}/task/*/status")):
        pass


def stays_locked(connection):
    """Everybody else's writes take a fraction of one pause."""
    for _ in range(PROBES):
        if not is_locked(connection):
            return False
        time.sleep(PAUSE)
    return True


def stop_inside_write(connection, process):
    while time.monotonic() < DEADLINE:
        if is_locked(connection):
            stop(process)
            if stays_locked(connection):
                return
            os.kill(process, signal.SIGCONT)
        time.sleep(PAUSE)
    sys.exit(f"process {process} does not hold the write lock")


def main(file, process):
    # The process must go on, or it could never end, whatever becomes of the test.
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    connection = sqlite3.connect(file, timeout=0, isolation_level=None)
    try:
        stop_inside_write(connection, process)
        print("stopped", flush=True)
        sys.stdin.read()
    finally:
        try:
            os.kill(process, signal.SIGCONT)
        except ProcessLookupError:
            pass


main(sys.argv[1], int(sys.argv[2]))
