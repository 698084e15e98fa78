"""Plays a scenario against a real core and writes down everything that comes out of it.

A scenario is text. A line that begins with `> ` is a command; the indented lines below it are what the
core must answer and do, all of it. `# ` begins a comment. Commands:

    node NODE 8xH100[+7xH100-1g.10gb@GPU…] [cpus=N] [memory=N] [labels=K:V,…] [holds=HASH[:BYTES],…]
                                            [rate=BYTES_PER_S] [bad=0,3]            what it will offer
    faults NODE DEVICE:CODE[xN],… [bad=0,3]    what its agent has seen of devices since it started
    sync NODE [canary=N[:DEVICE,…]] [gen=N] [inc=NAME] [seq=N] [LEASE=STATE[:FLAG…]]…
                                                                    flags: done ran ckpt model
                                                                    cp=STEP,… saved=N retired=STEP,…
                                                                    silent=SECONDS
                                                                    exit=N fail=CATEGORY epoch=N image=DIGEST
    submit JOB devices=N [nodes=N] [ranks=N] [type=T] [prio=N] [needs=JOB,…] [start=SECONDS]
                                                                    [queue=NAME] [expect=SECONDS]
                                                                    [by=SECONDS] [wants=HASH,…] [image=HASH] …
    join NODE SECRET    the node's credential is told
    drain NODE [force|move] [deadline=SECONDS] [at=SECONDS] [until=SECONDS] [check]
    health NODE[/DEVICE] HEALTHY|PROBATION|QUARANTINED [why=TEXT] [check]
    cancel JOB | enable NODE | remove NODE | key KEY
    roll DRAIN [labels=K:V,…] [out=N] [back] [force|move] [deadline=SECONDS] [check] | noroll DRAIN
    queue NAME [order=ORDER] [preempts] [aging=PERMILLE] [below=QUEUE] [weight=N] [guaranteed=N] [most=N]
                                            [tenants=TENANT:N,…] [closed] [cordoned] [check]
    noqueue NAME
    recall COMMAND      was this command answered before? (with its req=)
    renew            the coordinator was held up
    batch [atomic] JOB,… devices=N …    one command; the options are of each job
    pause JOB [nosave] [timeout=SECONDS] [else=KEEP_RUNNING|USE_LATEST|STOP]
    update JOB [prio=N] [queue=NAME] [limit=SECONDS] [expect=SECONDS] [check]
    all VERB JOB,… …    one command that does it to each: cancel, pause, resume, update
    resume JOB [from=CHECKPOINT] | retry JOB CHILD [from=CHECKPOINT] [devices=N] | preempt JOB
    tick SECONDS [alive]    time passes; a Tick is given whenever one is due; with `alive` nobody
                     falls silent meanwhile
    crash            the core is lost; another one loads what was stored
    lose N           the same, and the store has lost its newest N batches
    restore N        the same, and the store was put back as it was N batches ago

Each command is a batch of its own: one step, then one placement pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from coordinator.core.commands import (
    Command,
    JoinNode,
    ObservedCanary,
    ObservedLease,
    Recover,
    RetryJob,
    SyncNode,
    Tick,
)
from coordinator.core.core import Core
from coordinator.core.decision import Decision, Heard
from coordinator.core.faults import Fault
from coordinator.core.records import (
    Checkpoint,
    Demand,
    Device,
    Failure,
    Lease,
    LeaseState,
    Node,
    Offer,
)
from tests.sim.kept import RecordsKept
from tests.sim.trace import show_decision
from tests.transcript.verbs import GB, Words, caller, command, pairs

START_MS = 1_000_000
ALIVE_MS = 15_000


@dataclass
class Agent:
    """What a scenario last said of a node."""

    offer: Offer
    generation: int = 1
    incarnation: str = "a"
    sequence: int = 0


class Player:
    """One scenario being played."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.epoch = 1
        self.core = Core()
        self.store = RecordsKept()
        self.agents: dict[str, Agent] = {}
        self.lines: list[str] = []
        self.core.step(Recover(epoch=1), self.now_ms)

    def play(self, line: str) -> list[str]:
        """The trace of one command line (without its `> `)."""
        self.lines = []
        verb, *words = line.split()
        names = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        match verb:
            case "node":
                self.agents[names[0]] = Agent(_offer(names[0], names[1], options))
            case "faults":
                agent = self.agents[names[0]]
                agent.offer = _with_faults(agent.offer, names[1:], options)
            case "join":
                digest = hashlib.sha256(names[1].encode()).hexdigest()
                self._do(JoinNode(node_id=names[0], sha256=digest))
            case "sync":
                self._do(self._sync(names[0], options))
            case "tick":
                self._pass_time(round(float(names[0]) * 1000), alive="alive" in names)
            case "crash":
                self._crash()
            case "lose":
                self.store.lose(int(names[0]))
                self._crash()
            case "restore":
                self.store.lose(int(names[0]))
                self._mark_restored()
                self._crash()
            case "retry":
                self._do(self._retry(names, options))
            case _:
                self._do(command(Words(verb, names, options, self.now_ms)))
        return self.lines

    def _do(self, command: Command) -> None:
        before = self.core.digest()
        decision = self.core.step(command, self.now_ms)
        placed = self.core.schedule(self.now_ms)
        self.lines += show_decision(decision, self.now_ms) + show_decision(placed, self.now_ms)
        self.store.commit((*decision.events, *placed.events))
        self.core.check_invariants()
        if not _durable(decision) and not _durable(placed):
            assert self.core.digest() == before, "what notes no fact changes nothing"
        assert self.store.reload().digest() == self.core.digest(), "replay equals live"

    def _pass_time(self, duration_ms: int, *, alive: bool) -> None:
        end_ms = self.now_ms + duration_ms
        while alive and end_ms - self.now_ms > ALIVE_MS:
            self._hear_all()
            self._pass_time(ALIVE_MS, alive=False)
        if alive:
            self._hear_all()
        while (at_ms := self.core.next_deadline_ms()) is not None and at_ms <= end_ms:
            self.now_ms = max(self.now_ms, at_ms)
            self._do(Tick())
        self.now_ms = end_ms

    def _hear_all(self) -> None:
        """Whoever was heard is heard again, with nothing new to tell."""
        for heard in list(self.core.state.heard.values()):
            self.core.state.apply(replace(heard, at_ms=self.now_ms))

    def _crash(self) -> None:
        digest = self.core.digest()
        self.core = self.store.reload()
        self.lines.append(f"= {'same' if self.core.digest() == digest else 'OTHER'} state")
        self.epoch += 1
        self._do(Recover(epoch=self.epoch))

    def _mark_restored(self) -> None:
        for key, record in self.store.live.items():
            if isinstance(record, Node):
                self.store.live[key] = replace(record, restored=True)

    def _sync(self, node_id: str, options: dict[str, str]) -> SyncNode:
        agent = self.agents[node_id]
        generation = int(options.pop("gen", agent.generation))
        incarnation = options.pop("inc", agent.incarnation)
        canary = options.pop("canary", "")
        restarted = generation > agent.generation
        sequence = int(options.pop("seq", 1 if restarted else agent.sequence + 1))
        if generation >= agent.generation and incarnation:
            agent.generation, agent.sequence = generation, max(sequence, agent.sequence)
            agent.incarnation = incarnation
            if restarted:
                agent.sequence = sequence
        return SyncNode(
            node_id=node_id,
            incarnation=incarnation,
            generation=generation,
            sequence=sequence,
            offer=agent.offer,
            leases=tuple(self._observed(key, said) for key, said in options.items()),
            canary=_canary(node_id, canary) if canary else None,
        )

    def _retry(self, names: list[str], options: dict[str, str]) -> RetryJob:
        demand = Demand(device_count=int(options["devices"])) if "devices" in options else None
        return RetryJob(
            caller=caller(options, f"retry {names} {options}"),
            job_id=names[0],
            new_job_id=names[1],
            document=b"{}",
            demand=demand,
            checkpoint_id=options.get("from", ""),
            validate_only="check" in names,
            parent=self.store.history.get(names[0]),
        )

    def _observed(self, lease_id: str, said: str) -> ObservedLease:
        state, *flags = said.split(":")
        parts = [flag.partition("=") for flag in flags]
        options = {name: value for name, _, value in parts}
        lease = self.core.state.leases.get(lease_id)
        failure = None
        if "exit" in options or "fail" in options:
            category = options.get("fail", "USER_CODE")
            code = int(options["exit"]) if "exit" in options else None
            failure = Failure(category=category, message=f"{category} of a rank", exit_code=code)
        return ObservedLease(
            lease_id=lease_id,
            epoch=int(options.get("epoch", lease.epoch if lease else 1)),
            state=LeaseState[state],
            done="done" in options,
            failure=failure,
            checkpoints=tuple(
                self._checkpoint(step, lease) for step in options.get("cp", "").split(",") if step
            ),
            checkpointing="ckpt" in options,
            saved=int(options.get("saved", 0)),
            image_digest=options.get("image", ""),
            silent_since_ms=self.now_ms - 1000 * int(options["silent"])
            if "silent" in options
            else 0,
            retired=tuple(f"step-{step}" for step in options.get("retired", "").split(",") if step),
            output_model_uri="file:///model" if "model" in options else "",
            started_at_ms=self.now_ms if state == "RUNNING" or "ran" in options else 0,
        )

    def _checkpoint(self, step: str, lease: Lease | None) -> Checkpoint:
        """One that the attempt has just proven, or was told of before."""
        job = self.core.state.jobs.get(lease.job_id) if lease else None
        number = lease.attempt if lease else 0
        for known in job.checkpoints if job else ():
            if (known.checkpoint_id, known.attempt) == (f"step-{step}", number):
                return known
        return Checkpoint(
            checkpoint_id=f"step-{step}",
            step=int(step),
            uri=f"file:///step-{step}",
            size_bytes=1,
            digest="sha256:0",
            created_at_ms=self.now_ms,
            attempt=0,
        )


def _durable(decision: Decision) -> bool:
    return any(not isinstance(event, Heard) for event in decision.events)


def _devices(text: str) -> Iterator[tuple[str, int, str]]:
    """Name, index and type of each; `2xH100-3g.40gb@1` are instances of GPU 1, named 130 and 131."""
    first = 0
    for part in text.split("+"):
        count, _, kind = part.partition("x")
        kind, _, gpu = kind.partition("@")
        for number in range(int(count)):
            slices = kind.partition("-")[2].partition("g")[0]
            name = f"{gpu}{slices}{number}" if gpu else str(first + number)
            yield name, int(gpu) if gpu else first + number, kind
        first += 0 if gpu else int(count)


def _offer(node_id: str, devices: str, options: dict[str, str]) -> Offer:
    bad = options.get("bad", "").split(",")
    held = pairs(options.get("holds", ""))
    return Offer(
        devices=tuple(
            Device(
                device_id=f"{node_id}-{name}",
                index=index,
                type=kind,
                memory_bytes=80 * GB,
                healthy=name not in bad,
            )
            for name, index, kind in _devices(devices)
        ),
        labels=pairs(options.get("labels", "")),
        holds=tuple(key for key, _ in held),
        holds_bytes=tuple(int(size or 0) for _, size in held),
        fetch_bytes_per_s=int(options.get("rate", 0)),
        cpu_count=int(options.get("cpus", 64)),
        memory_bytes=int(options.get("memory", 1000)) * GB,
        disk_bytes=1000 * GB,
    )


def _with_faults(offer: Offer, told: list[str], options: dict[str, str]) -> Offer:
    found: dict[str, list[Fault]] = {}
    for one in ",".join(told).split(","):
        index, _, what = one.partition(":")
        code, _, count = what.partition("x")
        found.setdefault(index, []).append(Fault(code, int(count or 1), f"{code} was seen"))
    bad = options.get("bad", "").split(",")
    devices = tuple(
        replace(
            device,
            healthy=device.device_id.rpartition("-")[2] not in bad,
            faults=tuple(found.get(device.device_id.rpartition("-")[2], ())),
        )
        for device in offer.devices
    )
    return replace(offer, devices=devices)


def _canary(node_id: str, said: str) -> ObservedCanary:
    number, _, devices = said.partition(":")
    failed = ((f"{node_id}-{index}", "it fails") for index in devices.split(",") if index)
    return ObservedCanary(number=int(number), failed=tuple(failed))
