-- Job logs and metrics. Positions rise by one without holes in each of a job's two streams.

-- One row for each job that ever sent something, with the bounds of its streams and its newest figures.
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

-- Up to which offset everything of a source has been taken.
CREATE TABLE sources (
    job INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    PRIMARY KEY (job, attempt, rank, channel)
) WITHOUT ROWID;

-- Lines as they came, one row for a batch.
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
-- Answers by itself which chunks matter, so that the others are never read.
CREATE UNIQUE INDEX chunks_by_position ON chunks (job, last, rank, max_level, min_level, first);

CREATE TABLE points (
    job INTEGER NOT NULL,
    position INTEGER NOT NULL,
    body TEXT NOT NULL, -- JSON array that begins with the position
    PRIMARY KEY (job, position)
) WITHOUT ROWID;

-- Jobs whose streams were dropped, until their rows are gone.
CREATE TABLE dropped (
    job INTEGER PRIMARY KEY
);
