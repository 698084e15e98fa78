-- What a label's jobs have in common is written once, and stands with each of them as a number.

ALTER TABLE job_labels RENAME TO older_labels;
ALTER TABLE job_counts RENAME TO older_counts;

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

INSERT INTO job_counts (tenant_id, key, value, status, n)
    SELECT tenant_id, key, value, status, n FROM older_counts ORDER BY 1, 2, 3, 4;
INSERT INTO job_labels
    SELECT run, created_at, job_id
    FROM older_labels JOIN job_counts USING (tenant_id, key, value, status) ORDER BY 1, 2, 3;
DROP TABLE older_labels;
DROP TABLE older_counts;
