-- Lists by queue and parent, and counts that need no counting: queue and parent become labels, labels
-- stand in the order of pages, and each label's jobs are counted by status.

DROP TRIGGER jobs_inserted;
DROP TRIGGER jobs_moved;
DROP TRIGGER jobs_labelled;
DROP TABLE job_labels;
DROP TABLE job_counts;

-- Jobs by what they are filed under: their labels, and their queue and parent as labels `=queue` and
-- `=parent`. Kept by each commit, as are the counts; those under the label '' are of all jobs.
CREATE TABLE job_labels (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, key, value, status, created_at, job_id)
) WITHOUT ROWID;

CREATE TABLE job_counts (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    status TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, key, value, status)
) WITHOUT ROWID;

-- 32 bytes that only coordinators know; it signs the tokens of pages.
CREATE TABLE secret (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    secret BLOB NOT NULL
);
INSERT INTO secret VALUES (1, randomblob(32));

UPDATE jobs SET labels = json_set(labels, '$."=queue"', json_extract(body, '$[1].queue_name'));
UPDATE jobs SET labels = json_set(labels, '$."=parent"', json_extract(body, '$[1].parent_job_id'))
    WHERE json_extract(body, '$[1].parent_job_id') <> '';
INSERT INTO job_labels
    SELECT tenant_id, each.key, each.value, status, created_at, job_id
    FROM jobs, json_each(jobs.labels) AS each ORDER BY 1, 2, 3, 4, 5, 6;
INSERT INTO job_counts
    SELECT tenant_id, key, value, status, count(*) FROM job_labels GROUP BY 1, 2, 3, 4;
INSERT INTO job_counts
    SELECT tenant_id, '', '', status, count(*) FROM jobs GROUP BY tenant_id, status;
