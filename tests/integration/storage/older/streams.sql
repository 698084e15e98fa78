PRAGMA application_id = 1296257876;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE chunks (
    number INTEGER PRIMARY KEY,
    job INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    node_id TEXT NOT NULL,
    min_level INTEGER NOT NULL,
    max_level INTEGER NOT NULL,
    bytes INTEGER NOT NULL, -- of the columns before compression; counts against the budget
    compressed INTEGER NOT NULL,
    body BLOB NOT NULL -- msgpack: texts, levels, times
);
INSERT INTO "chunks" VALUES(1,1,1,1,1,0,1,'n1',2,2,29,0,X'9391AD68656C6C6F206F66207468656EC40102C408360C31FEA1010000');
CREATE TABLE dropped (
    job INTEGER PRIMARY KEY
);
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: what is dropped is deleted later
    job_id TEXT NOT NULL UNIQUE,
    log_first INTEGER NOT NULL DEFAULT 1,
    log_last INTEGER NOT NULL DEFAULT 0,
    log_bytes INTEGER NOT NULL DEFAULT 0,
    metrics_first INTEGER NOT NULL DEFAULT 1,
    metrics_last INTEGER NOT NULL DEFAULT 0,
    point TEXT, -- the newest, as in points
    progress REAL NOT NULL DEFAULT 0,
    eta_s REAL
);
INSERT INTO "jobs" VALUES(1,'job_1m7z322z4eqccs10qksk',1,1,29,1,0,NULL,0.0,NULL);
CREATE TABLE points (
    job INTEGER NOT NULL,
    position INTEGER NOT NULL,
    body TEXT NOT NULL, -- JSON array that begins with the position
    PRIMARY KEY (job, position)
) WITHOUT ROWID;
CREATE TABLE sources (
    job INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    PRIMARY KEY (job, attempt, rank, channel)
) WITHOUT ROWID;
INSERT INTO "sources" VALUES(1,1,0,1,14);
CREATE UNIQUE INDEX chunks_by_position ON chunks (job, last, rank, max_level, min_level, first);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
COMMIT;
