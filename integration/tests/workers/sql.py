"""Runs the statements on standard input in a SQLite file, and prints the first column of every row: `sql.py FILE`."""

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
statement = ""
for line in sys.stdin:
    statement += line
    if sqlite3.complete_statement(statement):
        for row in connection.execute(statement):
            print(row[0])
        statement = ""
if statement.strip():
    sys.exit(f"not a whole statement: {statement}")
