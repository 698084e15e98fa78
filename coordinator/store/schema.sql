-- The store: records, the audit of their changes, and who leads. Times are milliseconds UTC.

-- One row: the fencing epoch, the version (one more with each batch), the name of the last leader.
CREATE TABLE leadership (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    version INTEGER NOT NULL,
    holder TEXT NOT NULL
);
INSERT INTO leadership VALUES (1, 0, 0, '');

-- The newest batches, so that one that is offered again is known. The version is the one it made.
CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER batches_inserted AFTER INSERT ON batches BEGIN
    UPDATE leadership SET version = new.version;
END;
CREATE TRIGGER batches_forgotten AFTER INSERT ON batches WHEN new.version % 100 = 0 BEGIN
    DELETE FROM batches WHERE version <= new.version - 1000;
END;

-- Jobs, live and history. What is searched for stands in columns; the record is the body.
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    tenant_id TEXT NOT NULL,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    live INTEGER NOT NULL,
    labels TEXT NOT NULL, -- {"key": "value", …}
    body TEXT NOT NULL
);
CREATE INDEX jobs_live ON jobs (sequence, job_id) WHERE live;
-- A page is the first of up to 13 runs, one for each status: its cost does not grow with the history.
CREATE INDEX jobs_by_created_at ON jobs (tenant_id, status, created_at, job_id);
CREATE INDEX jobs_by_updated_at ON jobs (tenant_id, status, updated_at, job_id);
CREATE INDEX jobs_by_name ON jobs (tenant_id, status, name, job_id);
CREATE INDEX jobs_by_priority ON jobs (tenant_id, status, priority, job_id);
CREATE INDEX jobs_by_status ON jobs (tenant_id, status, job_id);

-- Kept by triggers, as are the counts: they cannot differ from the jobs.
CREATE TABLE job_labels (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    job_number INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key, value, job_number)
) WITHOUT ROWID;

CREATE TABLE job_counts (
    tenant_id TEXT NOT NULL,
    status TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, status)
) WITHOUT ROWID;

CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
    INSERT INTO job_counts VALUES (new.tenant_id, new.status, 1)
        ON CONFLICT (tenant_id, status) DO UPDATE SET n = n + 1;
    INSERT INTO job_labels
        SELECT new.tenant_id, key, value, new.number FROM json_each(new.labels);
END;
CREATE TRIGGER jobs_moved AFTER UPDATE ON jobs
WHEN new.status <> old.status OR new.tenant_id <> old.tenant_id BEGIN
    UPDATE job_counts SET n = n - 1 WHERE tenant_id = old.tenant_id AND status = old.status;
    INSERT INTO job_counts VALUES (new.tenant_id, new.status, 1)
        ON CONFLICT (tenant_id, status) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER jobs_labelled AFTER UPDATE ON jobs
WHEN new.labels <> old.labels OR new.tenant_id <> old.tenant_id BEGIN
    DELETE FROM job_labels WHERE tenant_id = old.tenant_id AND job_number = old.number
        AND (key, value) IN (SELECT each.key, each.value FROM json_each(old.labels) AS each);
    INSERT INTO job_labels
        SELECT new.tenant_id, key, value, new.number FROM json_each(new.labels);
END;

-- Leases, nodes, keys and remembered requests: all live, deleted when they retire.
CREATE TABLE records (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (kind, id)
);

-- What users submitted, opaque.
CREATE TABLE documents (
    number INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL
);

-- The audit. `version` names the batch.
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    cause TEXT NOT NULL,
    actor TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL
);
CREATE INDEX events_of ON events (id, sequence);
