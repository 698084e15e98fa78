"""How ranks run on this machine: processes under small supervisors that outlive the agent.

The fork server and the supervisors live in this package too; keep this module empty of imports,
because they load it and must stay small.
"""
