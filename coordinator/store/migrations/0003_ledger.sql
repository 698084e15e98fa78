-- What leases that have ended were used for: a row for each lease and day.

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
