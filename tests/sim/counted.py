"""How often each fault came, and each property was looked at: the tables of docs/reliability.md.

`python -m tests.sim --seed 300 --count 500 --table` prints them for the worlds of `make test`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from tests.sim.garbage import undisturbed
from tests.sim.swarm import PRINTING

FAULTS = {
    "crash before the write": "F1",
    "crash before the fsync": "F2",
    "crash before the reply": "F3",
    "commit lands but fails": "F3",
    "crash before the effects": "F4",
    "crash in recovery": "F5",
    "commit fails": "F6",
    "message lost": "F8, F9",
    "message repeated": "F8, F9",
    "message late": "F8, F9",
    "power cut": "F11",
    "power cut, disk lost": "F11",
    "node cut off": "F12",
    "node not heard": "F13",
    "node does not hear": "F13",
    "agent frozen": "F14",
    "agent dies": "F15",
    "agent reinstalled": "F15",
    "node cloned": "F16",
    "node clock jumps": "F17",
    "coordinator clock jumps": "F17",
    "coordinator stalls": "F18",
    "coordinator away": "F18",
    "all agents reconnect": "F19",
    "cancel": "F20",
    "drain": "F21",
    "drain by force": "F21",
    "drain with a deadline": "F21",
    "drain that moves": "F21",
    "rolling drain": "F21",
    "maintenance": "F21",
    "enable": "F21",
    "pause": "F22",
    "resume": "F22",
    "retry": "F23",
    "device trouble": "F25",
    "bad device": "F25",
    "health set": "",
    "hang": "F24",
    "engine away": "F24",
    "container removed": "F24",
    "out of memory": "F24",
    "image moves": "",
    "registry away": "",
    "image": "",
    "gap": "F27",
    "reader returns": "F28",
    "preempt": "F29",
    "batches lost": "F31",
    "coordinator crashes": "",
    "node gone": "",
    "node relocated": "",
    "kept within": "",
    "deadline": "",
    "near checkpoint": "",
    "raised": "",
    "moved": "",
    "data": "",
    "quota": "",
    "start time": "",
    "change": "",
    "stranger": "",
}
"""Every fault and wish, with its number in the plan where it has one."""

CHECKS = {
    "KeptTogether": ("I5", "all nodes of a gang are within the one rack or switch it asked for"),
    "EarliestFirst": (
        "",
        "of those that wait and want the same, who is wanted earliest goes first",
    ),
    "RaisedInTime": (
        "",
        "who waits for long behind higher priorities is raised, step by step, and in time",
    ),
    "NotBeforeItsTime": ("", "who is to start after some time waits for it, and no longer"),
    "NearIsAwaited": (
        "",
        "who is preempted has its grace, and longer while its next checkpoint is near",
    ),
    "MovedSafely": (
        "",
        "who is moved so that others fit has saved before, and goes on where that was set aside",
    ),
    "NothingLost": ("I1, I2", "what was acknowledged is there; one request is one job"),
    "OneAttemptAtATime": ("I3", "one attempt of a job at a time; a lease never runs twice at once"),
    "GivenUpAfterProof": ("I3", "what is given up, its node silent or removed, does not run"),
    "FewAtOnce": ("I3", "no node is given up while too many are silent by surprise"),
    "DoubtedTakesNothing": ("I3", "nothing is granted where what runs is not known yet"),
    "SilenceIsLong": ("I17", "nobody is called silent for what the coordinator itself has missed"),
    "NoDeviceTwice": ("I4", "a device never runs ranks of two leases"),
    "FreedByEvidence": ("I4", "a device is granted anew only after proof that it is free"),
    "Alone": ("I4", "who asked for its nodes for itself shares them with nobody"),
    "GangsWhole": ("I5", "a gang gets all or nothing, as it asked"),
    "LimitsHold": (
        "I6",
        "no queue or tenant takes more than it may, or lets more in; what is stopping counts",
    ),
    "LegalMoves": ("I7, I8", "what is final stays; only edges of the tables; versions rise by one"),
    "HonestOutcomes": (
        "I9",
        "only a job's own failures count; COMPLETED was true, FAILED deserved",
    ),
    "OneChildPerRequest": ("I9", "a retry that is asked for again gives no second child"),
    "FewOut": ("I10", "no rolling drain has more nodes out than it may"),
    "WhyIsKept": ("", "of every attempt that is preempted or drained it is kept why"),
    "DrainedStaysEmpty": ("I10", "a drained or silent node and a bad device are given to nobody"),
    "OutTakesNothing": (
        "",
        "what is out for its health takes nothing, returns as it may, and costs no retry",
    ),
    "CancelIsFinal": ("I11", "nothing is granted or started after a cancel"),
    "StoppedForAReason": ("I11", "what runs well is stopped only for a reason"),
    "SavedBeforeStopped": ("I12", "what is said to be saved was; a paused job runs nothing"),
    "HeldUntilResumed": ("I12", "what somebody wants held does not run again by itself"),
    "LinesOnce": ("I13", "each printed line is kept once, in order and whole, or a gap says not"),
    "readers": ("I14", "who is cut off goes on after his last event: none missing, none again"),
    "Audience": ("I14", "everybody who follows hears the end"),
    "tenants": ("I16", "what is another tenant's is as unknown as what never was"),
    "EverythingRan": ("I17", "once faults cease, everything that can run has run"),
    "replay": ("I18", "what is stored gives the state that lives"),
    "MemoryIsBounded": ("I19", "what is over leaves the live state"),
    "RoomForOne": ("I21", "devices that are set aside go to nobody else"),
    "HungIsHung": ("", "only what stands still is said to hang, and its job's wish is followed"),
    "LedgerIsExact": ("", "what a lease was used for adds up to what was leased, class by class"),
    "DataIsNear": (
        "",
        "who waits for a node that holds its data waits once, in bounds, and gets it or goes on",
    ),
    "NobodyDelaysAClaim": ("I21", "who is lent claimed devices is over in time, or made to be"),
    "NobodyOutlivesAWindow": ("I10", "who is put on a node that is to be out later does not mind"),
    "ChangedAsAsked": ("", "priorities, queues and limits change as somebody asked"),
    "QueuesAsSet": ("", "queues are as somebody set them; a closed one takes no new jobs"),
    "BatchesWhole": ("I2", "the jobs of a batch are accepted together, once, and all where asked"),
    "batches": ("I2", "who submits a batch is told of each of its jobs, in order"),
    "answers": ("I2", "a request that comes again has the answer that it had"),
    "KeysStay": ("", "one request is one key; what is revoked or removed lets nobody in"),
    "joins": ("", "a node's name is let in with the one credential that it has"),
    "SameImage": ("", "a job runs in one image, on all nodes, in all attempts, with its children"),
    "expected": ("", "images are brought ahead only for jobs that wait"),
    "invariants": ("", "all that must hold inside of the core's state"),
}
"""Who looks, for which invariant of the plan, and what it is."""


def tables(seeds: Iterable[int]) -> list[str]:
    """Two tables in Markdown: of the faults that came, and of the properties that were looked at."""
    from tests.sim.world import World

    seen = Counter[str]()
    worlds = events = 0
    began_s = time.process_time()
    for seed in seeds:
        world = World(seed)
        with undisturbed():
            world.run()
        seen += world.seen()
        worlds += 1
        events += world.loop.count
    spent_s = time.process_time() - began_s
    head = (
        f"{worlds} worlds, {PRINTING:.0%} of them print: {events:,} events in {spent_s:.0f} s of "
        f"processor time, {events / spent_s:,.0f} a second"
    )
    return [head, "", *_faults(seen), "", *_checks(seen)]


def _faults(seen: Counter[str]) -> list[str]:
    lines = ["| | Fault | Times | Different states and facts met |", "| --- | --- | ---: | ---: |"]
    for fault, number in FAULTS.items():
        met = sum(key.startswith(f"{fault} × ") for key in seen)
        lines.append(f"| {number or '—'} | {fault} | {seen[f'fault {fault}']:,} | {met} |")
    return lines


def _checks(seen: Counter[str]) -> list[str]:
    lines = ["| | Property | Checker | Times looked |", "| --- | --- | --- | ---: |"]
    for checker, (number, what) in CHECKS.items():
        times = seen[f"checked {checker}"]
        lines.append(f"| {number or '—'} | {what} | `{checker}` | {times:,} |")
    return lines
