-- What has changed of gateways and devices, in order: what is held of them in memory follows this. `kind`: 0 gateway, 1 device.
-- Triggers write it, so that no way of changing a thing forgets to; they keep the last hundred thousand changes.
CREATE TABLE list_change (n INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, id TEXT NOT NULL);
CREATE TRIGGER list_change_trimmed AFTER INSERT ON list_change BEGIN
    DELETE FROM list_change WHERE n <= new.n - 100000;
END;

CREATE TRIGGER gateway_listed AFTER INSERT ON gateway BEGIN INSERT INTO list_change (kind, id) VALUES (0, new.eui); END;
CREATE TRIGGER gateway_relisted AFTER UPDATE ON gateway BEGIN
    INSERT INTO list_change (kind, id) VALUES (0, new.eui);
END;
CREATE TRIGGER gateway_unlisted AFTER DELETE ON gateway BEGIN INSERT INTO list_change (kind, id) VALUES (0, old.eui); END;

CREATE TRIGGER device_listed AFTER INSERT ON device BEGIN INSERT INTO list_change (kind, id) VALUES (1, new.dev_eui); END;
CREATE TRIGGER device_relisted AFTER UPDATE OF name, search, application_id, device_profile_id ON device BEGIN
    INSERT INTO list_change (kind, id) VALUES (1, new.dev_eui);
END;
CREATE TRIGGER device_unlisted AFTER DELETE ON device BEGIN INSERT INTO list_change (kind, id) VALUES (1, old.dev_eui); END;
