-- The next renewal by a certain worker takes a second or more, and holds the write lock all the while. One renewal alone: what
-- is deleted at its end stays away, unless the write is undone.
CREATE TABLE slow_write (worker TEXT NOT NULL) STRICT;

-- A trigger may not begin with WITH, but it may read a view that does.
CREATE VIEW long_count AS
    WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 1500000)
    SELECT max(n) AS n FROM count;

CREATE TRIGGER slow_write AFTER UPDATE OF write_token ON shardwell_leases
WHEN EXISTS (SELECT 1 FROM slow_write WHERE worker = coalesce(NEW.checkpoint_owner, NEW.lease_owner)) BEGIN
    DELETE FROM slow_write WHERE (SELECT n FROM long_count) > 0;
END;
