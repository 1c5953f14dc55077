"""Takes the write lock of a SQLite file, says "held", and gives it back when standard input ends: `hold_write_lock.py FILE`."""

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
