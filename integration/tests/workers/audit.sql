-- Every write to the leases, in the order in which the writes happened: SQLite lets one transaction write at a time, and a
-- trigger is a part of its transaction. So nothing is missing here, nothing here was rolled back, and no two entries could
-- have happened the other way round.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    lease_key TEXT NOT NULL,
    -- The row before and after the write, as JSON; NULL where there was none.
    before TEXT,
    after TEXT
) STRICT;

CREATE TRIGGER audit_insert AFTER INSERT ON shardwell_leases BEGIN
    INSERT INTO audit (lease_key, after) VALUES (
        NEW.lease_key,
        json_object('owner', NEW.lease_owner, 'checkpoint_owner', NEW.checkpoint_owner, 'counter', NEW.lease_counter,
            'checkpoint', NEW.checkpoint, 'sub_sequence_number', NEW.checkpoint_sub_sequence_number,
            'token', NEW.write_token));
END;

CREATE TRIGGER audit_update AFTER UPDATE ON shardwell_leases BEGIN
    INSERT INTO audit (lease_key, before, after) VALUES (
        NEW.lease_key,
        json_object('owner', OLD.lease_owner, 'checkpoint_owner', OLD.checkpoint_owner, 'counter', OLD.lease_counter,
            'checkpoint', OLD.checkpoint, 'sub_sequence_number', OLD.checkpoint_sub_sequence_number,
            'token', OLD.write_token),
        json_object('owner', NEW.lease_owner, 'checkpoint_owner', NEW.checkpoint_owner, 'counter', NEW.lease_counter,
            'checkpoint', NEW.checkpoint, 'sub_sequence_number', NEW.checkpoint_sub_sequence_number,
            'token', NEW.write_token));
END;

CREATE TRIGGER audit_delete AFTER DELETE ON shardwell_leases BEGIN
    INSERT INTO audit (lease_key, before) VALUES (
        OLD.lease_key,
        json_object('owner', OLD.lease_owner, 'checkpoint_owner', OLD.checkpoint_owner, 'counter', OLD.lease_counter,
            'checkpoint', OLD.checkpoint, 'sub_sequence_number', OLD.checkpoint_sub_sequence_number,
            'token', OLD.write_token));
END;
