"""The node's data cache: what jobs name by a URI is fetched once, verified, kept, and shared.

Theory of operation. For each source that a lease names a short-lived process (`python -m
node_agent.cache`) asks the source, with the job's own tokens, what is there now: names, sizes and
marks (an ETag, a generation). That is both the proof that this job may read it, and the key under which
it may be here already. Only when the agent says go is anything fetched, so one content is fetched once
however many leases wait for it.

On disk, below the cache's folder:

    partial/<key>/      what is being fetched: grows, is resumed, and is nothing to anybody else
    objects/<digest>/   whole content: `meta.json` and `tree/`; comes by one rename, never changes
    refs/<key>.json     which object a key stands for, its URI, and the tenants that have read it
    trash/              what is being removed
    pace.json           how fast what came has come

A crash at any point leaves a partial that is resumed or dropped, or a whole object: nothing between.
"""
