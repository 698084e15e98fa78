"""Bugs to plant into the cores, to see that the simulator finds them: the test of the test.

Each one is a line of source that is changed while it is imported. What survives its bugs proves nothing.
"""

from __future__ import annotations

import sys

from tests.sim.planted_requests import BUGS as OF_REQUESTS
from tests.sim.planting import Edit, Planter

BUGS: dict[str, tuple[Edit, ...]] = {
    **OF_REQUESTS,
    "devices are free once a stop is asked for": (
        Edit(
            "coordinator.core.known",
            "not lease.is_ended and lease.lease_id not in without",
            'lease.action == "RUN" and not lease.is_ended',
        ),
        Edit("coordinator.core.state", "before.is_ended != lease.is_ended:", "True:"),
    ),
    "a late report is believed": (
        Edit("coordinator.core.sync", "command.sequence <= heard.sequence", "False"),
        Edit(
            "coordinator.core.sync",
            "lease.observed_sequence) < _moment(command)",
            "0) < (1 << 62, 0)",
        ),
    ),
    "an older agent is believed": (
        Edit("coordinator.core.sync", "if not newer and not same:", "if False:"),
        Edit(
            "coordinator.core.sync",
            "(lease.observed_generation, lease.observed_sequence)",
            "(0, 0)",
        ),
    ),
    "whoever fits is lent what is claimed": (
        Edit("coordinator.core.claims", "if over_ms > lender.claim.from_ms:", "if False:"),
    ),
    "who is not over in time is put where a node is to be out": (
        Edit(
            "coordinator.core.claims",
            "if from_ms >= turn.now_ms + (moved_ms if _empties(state, key) else left_ms)",
            "if from_ms > 0",
        ),
    ),
    "who was lent something keeps it": (
        Edit(
            "coordinator.core.claims",
            "preempt(turn, one, job=job, most=settings.max_preemptions_per_day)",
            "pass",
        ),
    ),
    "a lease on its way is lost": (
        Edit("coordinator.core.sync", "elif lease.state is LeaseState.GRANTED:", "elif False:"),
    ),
    "a drained node gets jobs": (Edit("coordinator.core.known", "= node.drain or ", "= "),),
    "a node out of contact gets jobs": (
        Edit("coordinator.core.known", " or node.unreachable_since_ms or self", " or self"),
    ),
    "a silent node is given up at once": (
        Edit(
            "coordinator.core.state",
            "left_ms = self.settings.replace_after_ms - self.settings.unreachable_after_ms",
            "left_ms = 1",
        ),
    ),
    "a job that waits for its node is given up with it": (
        Edit(
            "coordinator.core.loss",
            "if lease.is_over or not lease.fence_after_ms:",
            "if lease.is_over:",
        ),
        Edit("coordinator.core.check", "lease.fence_after_ms > 0", "True"),
    ),
    "devices of a lease that was given up are free": (
        Edit(
            "coordinator.core.known",
            "not lease.is_ended and lease.lease_id not in without",
            "not lease.is_over",
        ),
        Edit("coordinator.core.state", "before.is_ended != lease.is_ended:", "True:"),
        Edit(
            "coordinator.core.state",
            "() if other.is_ended else",
            "() if other.is_over else",
        ),
    ),
    "a lease that was given up still speaks for its job": (
        Edit("coordinator.core.sync", "if lease.fenced_at_ms:", "if False:"),
    ),
    "many silent nodes are no surprise": (
        Edit(
            "coordinator.core.contact",
            "return count >= SURPRISING_COUNT and count * SURPRISING_PART > known",
            "return False",
        ),
    ),
    "a supervisor keeps no deadline": (
        Edit("tests.sim.machine", "if folder.lease.fence_after_ms:", "if False:"),
    ),
    "a bad device is given away": (Edit("coordinator.core.known", "if d.healthy or anyway]", "]"),),
    "what is out for its health is given away": (
        Edit("coordinator.core.known", "(is_away or health.node.is_out)", "is_away"),
        Edit("coordinator.core.attempts", "not node.health.bars(spot.device_ids)", "True"),
    ),
    "who failed on what is out pays for it": (
        Edit("coordinator.core.attempts", "if blame.excused:", "if False:"),
    ),
    "a training that comes on is silent all the same": (
        Edit("node_agent.core.cadence", "silent_ms=0,\n            progress_ms", "progress_ms"),
    ),
    "who hangs where it hung is restarted for ever": (
        Edit("coordinator.core.retry", " and step_of(job) > job.hung_step", ""),
    ),
    "losing a node costs a retry": (
        Edit(
            "coordinator.core.retry",
            "Verdict(Reason.NODE_LOST, lost, ",
            "Verdict(Reason.NODE_LOST, lost, counts=True, ",
        ),
    ),
    "a drain costs a retry": (
        Edit(
            "coordinator.core.retry",
            "Verdict(_BY_STOP[attempt.stop])",
            "Verdict(_BY_STOP[attempt.stop], counts=True)",
        ),
    ),
    "a failed rank leaves its gang running": (
        Edit(
            "coordinator.core.attempts",
            "job = stop(turn, job, cause=cause, failure=failure)",
            "pass",
        ),
    ),
    "exit 0 after a stop is success": (
        Edit("coordinator.core.retry", "return job.attempt.stop is None or said_so", "return True"),
    ),
    "a request is forgotten": (
        Edit("coordinator.core.requests", "    if known is None:", "    if True:"),
    ),
    "the wait after a failure has no end": (
        Edit("coordinator.core.state", "at_ms=backoff_ms", "at_ms=0"),
    ),
    "limits count only what has not been asked to stop": (
        Edit(
            "coordinator.core.state",
            "holds = job is not None and not lease.is_ended",
            'holds = job is not None and lease.action == "RUN" and not lease.is_ended',
        ),
        Edit(
            "coordinator.core.state",
            "before is None or before.is_ended != lease.is_ended:",
            "True:",
        ),
    ),
    "a lifted limit keeps jobs back as before": (
        Edit(
            "coordinator.core.state",
            "waiting = [*self.queue.group_of]",
            "waiting = [x for x, group in self.queue.group_of.items() if not group.is_aside]",
        ),
    ),
    "a job that is changed stands in line where it stood": (
        Edit(
            "coordinator.core.state",
            "self.queue.file_again(job, queue, account=account, path=path)",
            "False",
        ),
    ),
    "what has to be done again counts as done as well": (
        Edit("coordinator.core.times", "changed[before] -= part", "pass"),
    ),
    "what a lease holds beyond its attempt is not booked": (
        Edit("coordinator.core.turn", "if leaves and after.days", "if False"),
    ),
    "a leader that starts calls everybody silent": (
        Edit(
            "coordinator.core.state",
            "at_ms = event.at_ms + self.settings.unreachable_after_ms + grace_ms",
            "at_ms = event.at_ms + (0 if event.renewed else self.settings.unreachable_after_ms)",
        ),
    ),
    "what is done first depends on the process": (
        Edit(
            "coordinator.core.known",
            "for key in sorted(self.leases_of_node.get(node_id, ()))]",
            "for key in {*self.leases_of_node.get(node_id, ())}]",
        ),
    ),
    "a new leader counts from its own beginning": (
        Edit(
            "coordinator.core.core",
            "        self._epoch = command.epoch\n",
            """        self._epoch = command.epoch
        from dataclasses import replace
        for job in [*self.state.jobs.values()]:
            if job.attempt is not None:
                times = job.attempt.times._replace(until_ms=turn.now_ms)
                attempt = replace(job.attempt, times=times)
                self.state.jobs[job.job_id] = replace(job, attempt=attempt)
""",
        ),
        Edit("coordinator.core.check", "total_ms(attempt.times.days) == counted_ms", "True"),
    ),
    "the time limit is raised of a job that is being ended for it": (
        Edit(
            "coordinator.core.change",
            'if "policy" in changes and _is_being_ended(job):',
            "if False:",
        ),
    ),
    "a change of the queue changes the priority": (
        Edit(
            "coordinator.core.change",
            'changes["queue_name"] = command.queue_name',
            'changes |= {"queue_name": command.queue_name, "priority": 0}',
        ),
    ),
    "nobody is told that a dependency ended": (
        Edit("coordinator.core.attempts", "list(turn.state.dependents.get(job_id, ()))", "()"),
    ),
    "the time limit counts from the grant": (
        Edit(
            "coordinator.core.state", "attempt.started_at_ms + job", "attempt.granted_at_ms + job"
        ),
    ),
    "an ended lease goes before its attempt is judged": (
        Edit(
            "coordinator.core.attempts",
            "if job.is_final or judged or not is_newest(job, lease):",
            "if True:",
        ),
    ),
    "a share of a device is taken twice": (
        Edit(
            "coordinator.core.known",
            "free[device_id] = free.get(device_id, WHOLE) - lease.thousandths",
            "free[device_id] = WHOLE - lease.thousandths",
        ),
        Edit("coordinator.core.state", "taken[device_id] += other.thousandths", "pass"),
        Edit("coordinator.core.check", 'taken[key] <= WHOLE, "no device', 'True, "no device'),
    ),
    "others come to who is to be alone": (
        Edit(
            "coordinator.core.known",
            "if not devices or any(lease.exclusive for lease in holding):",
            "if not devices:",
        ),
        Edit("coordinator.core.check", "ensure(others == {id}", "ensure(True"),
    ),
    "ranks are split over nodes": (
        Edit(
            "coordinator.core.placement",
            "islice(pool.device_ids, ranks * self._unit)",
            "islice(pool.device_ids, ranks)",
        ),
    ),
    "only the first node of a drain is stopped": (
        Edit(
            "coordinator.core.attempts",
            "if not lease.is_ended and lease.action is LeaseAction.RUN:",
            "if lease.node_rank == 0 and lease.action is LeaseAction.RUN and not lease.is_ended:",
        ),
    ),
    "a second cancel cause overwrites the record of a final job": (
        Edit(
            "coordinator.core.attempts",
            "if job.is_final or job.attempt is None:",
            "if job.attempt is None:",
        ),
    ),
    "a failure is not counted": (
        Edit(
            "coordinator.core.attempts", "job.failures_count + verdict.counts", "job.failures_count"
        ),
    ),
    "nobody can tell who was drained": (
        Edit("coordinator.core.attempts", "if cause is StopCause.DRAINED:", "if False:"),
    ),
    "a rolling drain takes one node too many": (
        Edit(
            "coordinator.core.rolling",
            "drain.max_unavailable - len(",
            "1 + drain.max_unavailable - len(",
        ),
        Edit("coordinator.core.check", "count <= drain.max_unavailable", "True"),
    ),
    "a rolling drain forgets how far it came": (
        Edit("coordinator.core.rolling", "cursor=taken[-1], ", ""),
    ),
    "maintenance takes a node from the rolling drain that has it out": (
        Edit(
            "coordinator.core.drain",
            'actor=window.actor,\n        rolling=node.drain.rolling if node.drain else "",',
            "actor=window.actor,",
        ),
    ),
    "who was asked by force is stopped though the drain is taken back": (
        Edit("coordinator.core.saving", "ask.cause is not StopCause.DRAINED", "ask != PATIENT"),
    ),
    "nobody is raised for having waited": (
        Edit(
            "coordinator.core.aging",
            "        if job.standing < top:",
            "        if False:",
        ),
    ),
    "who has waited is raised above all others": (
        Edit(
            "coordinator.core.aging",
            "top = tops[_reach(state, job.queue_name)]",
            "top = 10",
        ),
    ),
    "what a job was raised by is forgotten by those who show it": (
        Edit(
            "coordinator.runtime.queues",
            "job.status, job.standing, job.work_ms",
            "job.status, job.priority, job.work_ms",
        ),
    ),
    "a drain is in memory alone": (
        Edit(
            "coordinator.core.drain",
            "turn.edit_node(node, Reason.DRAIN_REQUESTED, drain=wish, window=window)",
            "replace(node, drain=wish)\n    turn.state.nodes[node.node_id] = node",
        ),
    ),
    "part of a gang is enough": (
        Edit("coordinator.core.attempts", "for spot in placement)", "for spot in placement[:1])"),
    ),
    "a gang is put anywhere that wants to be kept together": (
        Edit(
            "coordinator.core.placement",
            "selector = (*demand.node_selector, (key, value))",
            "selector = demand.node_selector",
        ),
    ),
    "nobody is wanted by a time": (
        Edit(
            "coordinator.core.order",
            "deadline_ms = job.policy.deadline_ms",
            "deadline_ms = 0",
        ),
    ),
    "who waited for another job starts before its time": (
        Edit(
            "coordinator.core.attempts",
            "if job.policy.start_after_ms > turn.now_ms:",
            "if False:",
        ),
    ),
    "a time that came while nobody led is forgotten": (
        Edit(
            "coordinator.core.state",
            "        self._set_job_deadlines(job)\n",
            '        if at_ms or job.reason != "WAITING_FOR_START_TIME":\n'
            "            self._set_job_deadlines(job)\n",
        ),
    ),
    "a job goes on with a part of its leases": (
        Edit("coordinator.core.attempts", "reached = min(", "reached = max("),
    ),
    "a lease of another epoch is taken for this one": (
        Edit("coordinator.core.sync", "one.epoch == lease.epoch and one.state", "one.state"),
    ),
    "a wall clock that jumps is believed": (
        Edit(
            "coordinator.runtime.clock",
            "self._now_ms += min(max(wanted_ms, least_ms), most_ms)",
            "self._now_ms += wanted_ms",
        ),
    ),
    "an answer goes out before it is durable": (
        Edit(
            "tests.sim.coordinator",
            "        self._later(self._rng.randint(1, 20) if durable else 0, committed)",
            "        [r(reply) for (_, r), reply in zip(batch, replies, strict=True)]\n"
            "        self._later(self._rng.randint(1, 20) if durable else 0, committed)",
        ),
    ),
    "an agent ignores the epoch of a lease": (
        Edit(
            "node_agent.core.reconcile",
            "want if want and want.epoch == lease.epoch else None",
            "want",
        ),
    ),
    "an agent leaves the rest of a failed gang running": (
        Edit("node_agent.core.reconcile", "first_fault(lease.ranks) is not None", "False"),
    ),
    "an agent does not hear a stop": (
        Edit("node_agent.core.reconcile", "    if not want.run:\n", "    if False:\n"),
    ),
    "an agent says nothing of a stop of what it does not know": (
        Edit(
            "node_agent.core.reconcile",
            "if key not in known_ids and",
            "if key not in known_ids and want.run and",
        ),
    ),
    "an agent forgets before the end is heard": (
        Edit("node_agent.core.reconcile", "want is None and lease.drained", "lease.drained"),
    ),
    "an agent takes a lease for ended with its first rank": (
        Edit(
            "node_agent.core.leases",
            "least is State.ENDED:",
            "not self.ranks or any(one.state is State.ENDED for one in self.ranks):",
        ),
    ),
    "a checkpoint that is near is not waited for": (
        Edit("coordinator.core.saving", "if cause is StopCause.PREEMPTED:", "if False:"),
    ),
    "a preemption waits for a checkpoint that is far": (
        Edit("coordinator.core.cadence", "min(now_ms - newest_ms, most_ms)", "(1 << 50)"),
        Edit("coordinator.core.cadence", "min(late_ms, now_ms + most_ms)", "late_ms"),
    ),
    "who was to give way to a job is stopped though that was cancelled": (
        Edit("coordinator.core.submit", "    let_stay(turn, before)\n", ""),
    ),
    "who is moved is stopped though nothing is saved": (
        Edit("coordinator.core.preempt", "KEEP_RUNNING if room else OnTimeout.STOP", "STOP"),
    ),
    "who is moved loses the place that was set aside for it": (
        Edit(
            "coordinator.core.turn",
            "(JobStatus.QUEUED, JobStatus.PREEMPTED)",
            "(JobStatus.QUEUED,)",
        ),
    ),
    "a job waits for devices of one that stays": (
        Edit(
            "coordinator.core.saving",
            "if rival is not None and any(",
            "if rival is not rival and any(",
        ),
    ),
    "a pause stops before its checkpoint is proven": (
        Edit("coordinator.core.saving", "if first.saved < first.save:", "if False:"),
    ),
    "an old checkpoint answers a new ask": (
        Edit(
            "coordinator.core.sync",
            "saved = min(one.saved, lease.save)",
            "saved = lease.save if one.checkpoints else 0",
        ),
    ),
    "a job that is to be held runs again": (
        Edit(
            "coordinator.core.retry",
            "job.attempt.hold and verdict.cause",
            "False and verdict.cause",
        ),
    ),
    "a paused job keeps its devices": (
        Edit(
            "coordinator.core.attempts",
            "if leases and all(lease.is_over for lease in leases):",
            "if job.attempt.stop is StopCause.PAUSED or all(lease.is_over for lease in leases):",
        ),
    ),
    "a cancel is lost while a job is being paused": (
        Edit(
            "coordinator.core.submit",
            "    if job.is_final:",
            "    if job.is_final or (job.attempt is not None and job.attempt.hold):",
        ),
    ),
    "a retry that is asked for twice gives two children": (
        Edit(
            "coordinator.core.child",
            "return remember(turn, command.caller, reply=Reply(job=child), settings=settings)",
            "return Reply(job=child)",
        ),
    ),
    "a node is trusted before it was heard": (
        Edit(
            "coordinator.core.doubt",
            "node_id in self._awaited or node_id in self.unknown",
            "node_id in self.unknown",
        ),
    ),
    "a node that holds what nobody knows takes more": (
        Edit(
            "coordinator.core.doubt",
            "node_id in self._awaited or node_id in self.unknown",
            "node_id in self._awaited",
        ),
    ),
    "a job starts while ranks of it may run that nobody knows": (
        Edit("coordinator.core.doubt", "return self._holders.get(job_id, ())", "return ()"),
    ),
    "an agent hides that a rank failed": (
        Edit("node_agent.core.leases", "not self.stopped and self.exit_code != 0", "False"),
    ),
    "a log is acknowledged before it is stored": (
        Edit(
            "coordinator.rpc.intake",
            "        offsets = iter(await self._streams.append(appends) if appends else ())\n",
            "        late = asyncio.ensure_future(self._streams.append(appends))\n"
            "        late.add_done_callback(lambda done: done.exception())\n"
            "        offsets = iter([one.end for one in appends])\n",
        ),
    ),
    "an agent that comes back counts its lines anew": (
        Edit("node_agent.spool.rank_spool", "base=place.base,", "base=place.acked,"),
    ),
    "lines that come again are taken again": (
        Edit("coordinator.streams.intake", "if batch.end <= known or (", "if ("),
        Edit("coordinator.streams.intake", "start = bisect_right(batch.ends, known)", "start = 0"),
    ),
    "a gap in a log is not written down": (
        Edit("coordinator.streams.intake", "    if batch.begin > known:", "    if False:"),
    ),
    "what landed though its append failed is not shown": (
        Edit(
            "coordinator.streams.front",
            "                self._tails.forget(job_id)",
            " " * 16 + "pass",
        ),
    ),
    "an agent forgets what was not acknowledged": (
        Edit("node_agent.spool.spool", "return lease is None or lease.told[1]", "return True"),
    ),
    "a log ends before its last lines": (
        Edit(
            "coordinator.rpc.follow",
            "if node is not None and not node.unreachable_since_ms:",
            "if False:",
        ),
    ),
    "who follows again is shown the last line again": (
        Edit(
            "coordinator.rpc.follow",
            'the stream had ended there")\n        return position',
            'the stream had ended there")\n        return max(0, position - 1)',
        ),
    ),
    "the id of a line counts those of its message": (
        Edit(
            "coordinator.rpc.follow",
            'f"{line.position}{suffix}"',
            'f"{lines.index(line) + 1}{suffix}"',
        ),
    ),
    "an id of another job's log is taken for a place": (
        Edit("coordinator.rpc.follow", "if cursor == self.make(position):", "if True:"),
    ),
    "a log is shown to every tenant": (
        Edit(
            "coordinator.rpc.jobs", "if job is None or job.tenant_id != tenant_id:", "if not job:"
        ),
    ),
    "a job obeys every tenant": (
        Edit(
            "coordinator.core.requests",
            "if job is None or job.tenant_id != command.caller.tenant_id:",
            "if job is None:",
        ),
    ),
    "a job is retried for every tenant": (
        Edit(
            "coordinator.core.child",
            "        or parent.tenant_id != command.caller.tenant_id\n",
            "",
        ),
    ),
    "a job waits for one of another tenant": (
        Edit(
            "coordinator.core.submit",
            "if job is not None and job.tenant_id == command.caller.tenant_id:",
            "if job is not None:",
        ),
    ),
    "two tenants share their request ids": (
        Edit(
            "coordinator.core.requests",
            'state.requests.get(f"{caller.tenant_id}/{caller.request_id}")',
            "state.requests.get(caller.request_id)",
        ),
        Edit(
            "coordinator.core.records",
            'return f"{self.tenant_id}/{self.request_id}"',
            "return self.request_id",
        ),
    ),
}


def plant(name: str) -> None:
    """Plants a bug; nothing of the core may have been imported yet."""
    if any(edit.module in sys.modules for edit in BUGS[name]):
        raise RuntimeError("what is to be changed was imported before the bug was planted")
    sys.meta_path.insert(0, Planter(BUGS[name]))
