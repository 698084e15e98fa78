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

-- How many jobs of a status stand under each label: their labels, and their queue and parent as labels
-- `=queue` and `=parent`; under the label '' all jobs of a tenant. Kept by each commit.
CREATE TABLE job_counts (
    run INTEGER PRIMARY KEY, -- under which they are filed
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    status TEXT NOT NULL,
    n INTEGER NOT NULL,
    UNIQUE (tenant_id, key, value, status)
);

-- Those jobs, but for those under the label ''. A number for all that they have in common keeps it small.
CREATE TABLE job_labels (
    run INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    PRIMARY KEY (run, created_at, job_id)
) WITHOUT ROWID;

-- 32 bytes that only coordinators know; it signs the tokens of pages.
CREATE TABLE secret (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    secret BLOB NOT NULL
);
INSERT INTO secret VALUES (1, randomblob(32));

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

-- The ledger: what leases that have ended were used for, a row for each lease and day.
-- Device-microseconds by class. `version` names the batch, `day` is counted from 1970 (UTC).
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    day INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    queue_name TEXT NOT NULL,
    node_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    cause TEXT NOT NULL,
    cause_id TEXT NOT NULL,
    is_foreign INTEGER NOT NULL,
    starting INTEGER NOT NULL,
    productive INTEGER NOT NULL,
    checkpointing INTEGER NOT NULL,
    redone INTEGER NOT NULL,
    idle INTEGER NOT NULL,
    paused INTEGER NOT NULL
);
CREATE INDEX entries_of_days ON entries (day);
CREATE INDEX entries_of_tenants ON entries (tenant_id, day);
