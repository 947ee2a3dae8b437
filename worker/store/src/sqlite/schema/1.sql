-- Keys, and what is searched or compared, are columns; the rest of a row is JSON in `body`.
-- EUIs and UUIDs are text as people write them, times are microseconds since 1970.
-- `key_wrap`: how device keys in the row are encrypted; 0 = not.

CREATE TABLE setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE tenant (id TEXT PRIMARY KEY, name TEXT NOT NULL, search TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX tenant_by_name ON tenant (name, id);

CREATE TABLE user (
    id TEXT PRIMARY KEY, email TEXT NOT NULL, email_key TEXT NOT NULL UNIQUE, search TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX user_by_email ON user (email, id);

CREATE TABLE api_key (
    id TEXT PRIMARY KEY, tenant_id TEXT REFERENCES tenant (id) ON DELETE CASCADE,
    name TEXT NOT NULL, search TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX api_key_by_tenant ON api_key (tenant_id, name, id);

CREATE TABLE application (
    id TEXT PRIMARY KEY, tenant_id TEXT NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    name TEXT NOT NULL, search TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX application_by_tenant ON application (tenant_id, name, id);

CREATE TABLE device_profile (
    id TEXT PRIMARY KEY, tenant_id TEXT NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    name TEXT NOT NULL, search TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX device_profile_by_tenant ON device_profile (tenant_id, name, id);

CREATE TABLE gateway (
    eui TEXT PRIMARY KEY, tenant_id TEXT NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    name TEXT NOT NULL, search TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX gateway_by_tenant ON gateway (tenant_id, name, eui);
CREATE TABLE gateway_seen (eui TEXT PRIMARY KEY REFERENCES gateway (eui) ON DELETE CASCADE, body TEXT NOT NULL);
-- One row. Triggers count, so that no way of changing a gateway forgets to.
CREATE TABLE gateway_set (version INTEGER NOT NULL);
INSERT INTO gateway_set VALUES (1);
CREATE TRIGGER gateway_made AFTER INSERT ON gateway BEGIN UPDATE gateway_set SET version = version + 1; END;
CREATE TRIGGER gateway_changed AFTER UPDATE ON gateway BEGIN UPDATE gateway_set SET version = version + 1; END;
CREATE TRIGGER gateway_gone AFTER DELETE ON gateway BEGIN UPDATE gateway_set SET version = version + 1; END;

CREATE TABLE device (
    dev_eui TEXT PRIMARY KEY,
    application_id TEXT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
    device_profile_id TEXT NOT NULL REFERENCES device_profile (id),
    name TEXT NOT NULL, search TEXT NOT NULL,
    app_key TEXT, key_wrap INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL
);
CREATE INDEX device_by_application ON device (application_id, name, dev_eui);
CREATE INDEX device_by_profile ON device (device_profile_id, dev_eui);
CREATE INDEX device_by_name ON device (name, dev_eui);
CREATE TABLE device_seen (dev_eui TEXT PRIMARY KEY REFERENCES device (dev_eui) ON DELETE CASCADE, body TEXT NOT NULL);

-- Sessions, joins and queues may outrun the device row (a join that is under way while the device is deleted), so they
-- are no foreign keys; a deleted device takes them along by trigger.
CREATE TABLE session (
    dev_addr INTEGER NOT NULL, dev_eui TEXT NOT NULL, id INTEGER NOT NULL, rev INTEGER NOT NULL,
    key_wrap INTEGER NOT NULL DEFAULT 0, body TEXT NOT NULL,
    UNIQUE (dev_addr, dev_eui, id)
);
CREATE INDEX session_by_device ON session (dev_eui);
-- Apart from the session, so that a mark writes one small row.
CREATE TABLE session_mark (
    dev_addr INTEGER NOT NULL, dev_eui TEXT NOT NULL, id INTEGER NOT NULL,
    out INTEGER NOT NULL DEFAULT 0, out_through_pending INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (dev_addr, dev_eui, id)
) WITHOUT ROWID;
CREATE TRIGGER session_gone AFTER DELETE ON session BEGIN
    DELETE FROM session_mark WHERE dev_addr = old.dev_addr AND dev_eui = old.dev_eui AND id = old.id;
END;

CREATE TABLE device_state (dev_eui TEXT PRIMARY KEY, rev INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE join_row (
    dev_eui TEXT NOT NULL, dev_nonce INTEGER NOT NULL, key_wrap INTEGER NOT NULL DEFAULT 0, body TEXT NOT NULL,
    UNIQUE (dev_eui, dev_nonce)
);

-- The last number outlives the items: no number is given twice.
CREATE TABLE queue_number (dev_eui TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE queue_item (
    dev_eui TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (dev_eui, seq), UNIQUE (dev_eui, id)
);

CREATE TRIGGER device_gone AFTER DELETE ON device BEGIN
    DELETE FROM session WHERE dev_eui = old.dev_eui;
    DELETE FROM device_state WHERE dev_eui = old.dev_eui;
    DELETE FROM join_row WHERE dev_eui = old.dev_eui;
    DELETE FROM queue_item WHERE dev_eui = old.dev_eui;
    DELETE FROM queue_number WHERE dev_eui = old.dev_eui;
END;

-- By rowid: new receptions go to the end of the table, whatever their key.
CREATE TABLE reception (
    key BLOB NOT NULL, gateway TEXT NOT NULL, context INTEGER NOT NULL,
    received_at INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (key, gateway, context)
);
CREATE INDEX reception_by_time ON reception (received_at);

-- `n` is the order of writing: what waits longest has the lowest.
CREATE TABLE pending (
    n INTEGER PRIMARY KEY,
    integration TEXT NOT NULL, device TEXT NOT NULL,
    session_since INTEGER NOT NULL, slot INTEGER NOT NULL, part INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (integration, device, session_since, slot, part)
);

CREATE TABLE lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;

-- `role`: 0 worker, 1 balancer.
CREATE TABLE server (role INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (role, name)) WITHOUT ROWID;
CREATE TABLE revoked_server (
    name TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE join_token (
    id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
