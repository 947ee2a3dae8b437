-- When each pending event was put (Unix, us; 0 if a process of the version before did it).
ALTER TABLE pending ADD COLUMN written_at INTEGER NOT NULL DEFAULT 0;
UPDATE pending SET written_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER);
-- An integration's events from the oldest on.
CREATE INDEX pending_by_integration ON pending (integration);
-- Which devices have events waiting, how many and how large, so that none of that is ever counted. `first` is the `n` of the event
-- that goes out next. Triggers keep it, so that no way of writing an event forgets to.
CREATE TABLE pending_device (
    integration TEXT NOT NULL, device TEXT NOT NULL,
    first INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (integration, device)
) WITHOUT ROWID;
INSERT INTO pending_device (integration, device, first, events, bytes)
SELECT integration, device, min(n), count(*), sum(octet_length(body)) FROM pending GROUP BY integration, device;
CREATE TRIGGER pending_put AFTER INSERT ON pending BEGIN
    INSERT INTO pending_device (integration, device, first, events, bytes)
    VALUES (new.integration, new.device, new.n, 1, octet_length(new.body))
    ON CONFLICT (integration, device) DO UPDATE SET events = events + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER pending_gone AFTER DELETE ON pending BEGIN
    DELETE FROM pending_device WHERE integration = old.integration AND device = old.device AND events <= 1;
    UPDATE pending_device SET events = events - 1, bytes = bytes - octet_length(old.body)
    WHERE integration = old.integration AND device = old.device;
    UPDATE pending_device SET first = (
        SELECT n FROM pending WHERE integration = old.integration AND device = old.device
        ORDER BY session_since, slot, part LIMIT 1)
    WHERE integration = old.integration AND device = old.device AND first = old.n;
END;
