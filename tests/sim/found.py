"""From which seeds planted bugs are found, and which bugs are not planted."""

from __future__ import annotations

FOUND_BY = {
    "a queue is removed from above others": 90,
    "what ranks of different images came to together counts": 430,
    "a child runs in the image of the day": 60,
    "the image of a job is what a node said last": 130,
    "a gang runs in different images": 130,
    "data are awaited for as long as to fetch them takes": 361,
    "nobody gives up waiting for its data": 910,
    "who waits for its data takes what others hold": 361,
    "an older agent is believed": 31,
    "whoever fits is lent what is claimed": 14,
    "who is not over in time is put where a node is to be out": 278,
    "who was lent something keeps it": 23,
    "a lease on its way is lost": 12,
    "a node out of contact gets jobs": 4,
    "a silent node is given up at once": 28,
    "a job that waits for its node is given up with it": 45,
    "devices of a lease that was given up are free": 646,
    "a lease that was given up still speaks for its job": 154,
    "many silent nodes are no surprise": 310,
    "a supervisor keeps no deadline": 1890,
    "a bad device is given away": 23,
    "the time limit is raised of a job that is being ended for it": 183,
    "nobody is told that a dependency ended": 4,
    "the time limit counts from the grant": 17,
    "who was asked by force is stopped though the drain is taken back": 79,
    "nobody is raised for having waited": 33,
    "who has waited is raised above all others": 10,
    "what a job was raised by is forgotten by those who show it": 14,
    "a rolling drain takes one node too many": 9,
    "maintenance takes a node from the rolling drain that has it out": 52,
    "a rolling drain forgets how far it came": 9,
    "a job goes on with a part of its leases": 210,
    "a lease of another epoch is taken for this one": 757,
    "a wall clock that jumps is believed": 14,
    "an agent ignores the epoch of a lease": 100,
    "an agent leaves the rest of a failed gang running": 3,
    "an agent forgets before the end is heard": 12,
    "a pause stops before its checkpoint is proven": 60,
    "a job that is to be held runs again": 9,
    "a paused job keeps its devices": 6,
    "a cancel is lost while a job is being paused": 59,
    "a retry that is asked for twice gives two children": 28,
    "a job starts while ranks of it may run that nobody knows": 516,
    "a log is acknowledged before it is stored": 26,
    "an agent that comes back counts its lines anew": 11,
    "lines that come again are taken again": 8,
    "a gap in a log is not written down": 8,
    "what landed though its append failed is not shown": 910,
    "an agent forgets what was not acknowledged": 8,
    "a log ends before its last lines": 8,
    "who follows again is shown the last line again": 8,
    "the id of a line counts those of its message": 8,
    "an id of another job's log is taken for a place": 12,
    "a log is shown to every tenant": 8,
    "a job is retried for every tenant": 7,
    "a training that comes on is silent all the same": 15,
    "who hangs where it hung is restarted for ever": 92,
    "a gang is put anywhere that wants to be kept together": 16,
    "nobody is wanted by a time": 3,
    "who waited for another job starts before its time": 3,
}
"""Seeds near which to begin to look, for bugs that few worlds show."""

NOT_YET = {
    "who found no room is never tried again": (
        "it shows only where a node has more devices and no more of anything else, and nothing else has "
        "the job looked at again: a thousand seeds may not come there; tests/transcript/instances.txt "
        "holds it"
    ),
    "a drain stops what has gone elsewhere; leases of a removed node stay": (
        "nine hundred seeds do not come there; transcripts hold both (replace_after_proof, "
        "remove_a_node_of_a_gang)"
    ),
    "what was stopped unasked is done": (
        "it shows only when a store has lost the very batch that asked for the stop"
    ),
    "an agent starts ranks on devices in use": (
        "it shows only when a store has lost a grant, and dozens of seeds may pass until the devices are "
        "given away again at that moment; tests/sim/test_devices.py holds it"
    ),
    "an agent lets run what nobody wants": (
        "at rest nothing may run that nobody knows, but only a job that hangs, and whose grant a store has "
        "lost, would still run then: 150 seeds do not meet it"
    ),
    "a queue that starts nothing starts what room was made for": (
        "four hundred seeds do not come there; queue_cordoned_meanwhile holds it"
    ),
    "resume from the newest rather than the committed checkpoint": (
        "an agent reports a checkpoint once it is proven; which one a job resumes from is chosen outside "
        "the core"
    ),
    "launch before append; recovery re-sends a launch without epoch": (
        "nothing is sent: agents pull what is stored"
    ),
    "snapshot without the last record; torn record accepted": "the stores' own; see their contract suite",
    "cache entry evicted at refcount race": (
        "the cache of a node is no part of its core; tests/integration/cache holds it"
    ),
}
"""Bugs that cannot be planted into what there is, or that seeds take too long to find, and why."""
