"""The commands of a scenario's lines: `player.py` says how they are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from coordinator.core.commands import (
    ActOnJobs,
    Caller,
    CancelJob,
    CancelRollingDrain,
    Command,
    DrainNode,
    EnableNode,
    PauseJob,
    PreemptJob,
    PutKey,
    PutQueue,
    Recall,
    RemoveNode,
    RemoveQueue,
    Renew,
    ResumeJob,
    SetHealth,
    StartRollingDrain,
    SubmitJob,
    SubmitJobs,
    UpdateJob,
)
from coordinator.core.health import HealthState
from coordinator.core.records import (
    ROOT,
    WHOLE,
    Demand,
    Key,
    OnHang,
    OnTimeout,
    OnUnreachable,
    Order,
    Pairs,
    Policy,
    Queue,
    RollingDrain,
)

GB = 10**9


@dataclass(frozen=True, slots=True)
class Words:
    """One line: its plain words after the verb, its options NAME=TEXT, and when it is read."""

    verb: str
    names: list[str]
    options: dict[str, str]
    now_ms: int

    @property
    def name(self) -> str:
        """Whom it is about."""
        return self.names[0]

    @property
    def check(self) -> bool:
        """Whether nothing is to be done."""
        return "check" in self.names

    @property
    def caller(self) -> Caller:
        """Who says it."""
        return caller(self.options, f"{self.verb} {self.names} {self.options}")

    def ms(self, option: str) -> int:
        """An option in seconds, in milliseconds; 0 where it is missing."""
        return int(self.options.get(option, 0)) * 1000

    def at_ms(self, option: str) -> int:
        """An option in seconds from now, as a time; 0 where it is missing."""
        return self.now_ms + self.ms(option) if option in self.options else 0


def command(words: Words) -> Command:
    """The command of a line."""
    if words.verb not in _COMMANDS:
        raise ValueError(f"no such command: {words.verb}")
    return _COMMANDS[words.verb](words)


def pairs(text: str) -> Pairs:
    """KEY:VALUE,… in order."""
    found = [pair.partition(":") for pair in text.split(",") if pair]
    return tuple(sorted((key, value) for key, _, value in found))


def caller(options: dict[str, str], line: str) -> Caller:
    """Who says a line."""
    return Caller(
        tenant_id=options.get("tenant", "acme"),
        user_id=options.get("user", "ada"),
        request_id=options.get("req", ""),
        digest=line,
    )


def _health(words: Words) -> SetHealth:
    node_id, _, device = words.name.partition("/")
    return SetHealth(
        caller=words.caller,
        node_id=node_id,
        device_id=f"{node_id}-{device}" if device else "",
        state=HealthState(words.names[1]),
        reason=words.options.get("why", ""),
        validate_only=words.check,
    )


def _cancel(words: Words) -> CancelJob:
    reason = words.options.get("why", "")
    return CancelJob(caller=words.caller, job_id=words.name, reason=reason)


def _batch(words: Words) -> SubmitJobs:
    jobs = [
        replace(_submit(replace(words, names=[job_id, *words.names])), caller=caller({}, ""))
        for job_id in words.names[-1].split(",")
    ]
    return SubmitJobs(caller=words.caller, jobs=tuple(jobs), atomic="atomic" in words.names)


def _pause(words: Words) -> PauseJob:
    return PauseJob(
        caller=words.caller,
        job_id=words.name,
        save_checkpoint="nosave" not in words.names,
        timeout_ms=words.ms("timeout"),
        on_timeout=OnTimeout(words.options.get("else", "KEEP_RUNNING")),
    )


def _update(words: Words) -> UpdateJob:
    options = words.options
    return UpdateJob(
        caller=words.caller,
        job_id=words.name,
        priority=int(options["prio"]) if "prio" in options else None,
        queue_name=options.get("queue"),
        max_runtime_ms=words.ms("limit") if "limit" in options else None,
        expected_duration_ms=words.ms("expect") if "expect" in options else None,
        validate_only=words.check,
    )


def _all(words: Words) -> ActOnJobs:
    verb, job_ids, *more = words.names
    each = {name: text for name, text in words.options.items() if name != "req"}
    acts = [
        command(Words(verb, [job_id, *more], each, words.now_ms)) for job_id in job_ids.split(",")
    ]
    return ActOnJobs(caller=words.caller, acts=tuple(acts))  # type: ignore[arg-type]


def _resume(words: Words) -> ResumeJob:
    checkpoint_id = words.options.get("from", "")
    return ResumeJob(caller=words.caller, job_id=words.name, checkpoint_id=checkpoint_id)


def _drain(words: Words) -> DrainNode:
    return DrainNode(
        caller=words.caller,
        node_id=words.name,
        force="force" in words.names,
        move="move" in words.names,
        reason=words.options.get("why", ""),
        deadline_ms=words.at_ms("deadline"),
        from_ms=words.at_ms("at"),
        until_ms=words.at_ms("until"),
        validate_only=words.check,
    )


def _roll(words: Words) -> StartRollingDrain:
    drain = RollingDrain(
        drain_id=words.name,
        selector=pairs(words.options.get("labels", "")),
        max_unavailable=int(words.options.get("out", 1)),
        until_enabled="back" in words.names,
        force="force" in words.names,
        move="move" in words.names,
        node_deadline_ms=words.ms("deadline"),
    )
    return StartRollingDrain(caller=words.caller, drain=drain, validate_only=words.check)


def _queue(words: Words) -> PutQueue:
    names, options = words.names, words.options
    limits = [(tenant, int(most)) for tenant, most in pairs(options.get("tenants", ""))]
    queue = Queue(
        name=words.name,
        parent=options.get("below", ROOT),
        weight=int(options.get("weight", 1)),
        guaranteed_devices=int(options.get("guaranteed", 0)),
        max_devices=int(options.get("most", 0)),
        tenant_limits=tuple(limits),
        accepts="closed" not in names,
        places="cordoned" not in names,
        order=Order(options.get("order", "PRIORITY_FIFO")),
        preempts="preempts" in names,
        aging_permille=int(options.get("aging", 20)),
    )
    return PutQueue(caller=words.caller, queue=queue, validate_only=words.check)


def _key(words: Words) -> PutKey:
    key = Key(
        key_id=words.name,
        sha256="0" * 64,
        tenant_id="acme",
        user_id="ada",
        permissions=(),
        created_at_ms=words.now_ms,
        revoked_at_ms=words.now_ms if "revoked" in words.names else 0,
    )
    return PutKey(caller=words.caller, key=key)


def _recall(words: Words) -> Recall:
    digest = f"{words.name} {words.names[1:]} {words.options}"
    return Recall(caller=replace(words.caller, digest=digest))


def _submit(words: Words) -> SubmitJob:
    options, now_ms = words.options, words.now_ms
    start, by = options.get("start"), options.get("by")
    return SubmitJob(
        caller=words.caller,
        job_id=words.name,
        name=words.name,
        demand=Demand(
            device_count=int(options["devices"]),
            thousandths=int(options.get("share", WHOLE)),
            device_type=options.get("type", ""),
            device_memory_bytes=int(options.get("device_memory", 0)) * GB,
            node_count=int(options.get("nodes", 0)),
            world_size=int(options.get("ranks", 0)),
            cpu_count=int(options.get("cpus", 0)),
            memory_bytes=int(options.get("memory", 0)) * GB,
            node_selector=pairs(options.get("selector", "")),
            within=options.get("within", ""),
            exclusive="exclusive" in options,
        ),
        policy=Policy(
            max_retries=int(options.get("retries", 0)),
            retry_on_exit_codes=tuple(int(x) for x in options.get("codes", "").split(",") if x),
            start_after_ms=now_ms + int(start) * 1000 if start else 0,
            deadline_ms=now_ms + int(by) * 1000 if by else 0,
            depends_on=tuple(x for x in options.get("needs", "").split(",") if x),
            preemptible="firm" not in options,
            requeue_on_preemption="once" not in options,
            max_runtime_ms=int(options.get("limit", 0)) * 1000,
            expected_duration_ms=int(options.get("expect", 0)) * 1000,
            grace_ms=int(options.get("grace", 120)) * 1000,
            on_unreachable=OnUnreachable(options.get("unreachable", "KEEP")),
            on_hang=OnHang(options.get("hang", "REPORT")),
        ),
        document=b"{}",
        priority=int(options.get("prio", 5)),
        queue_name=options.get("queue", "default"),
        validate_only=words.check,
        parent_job_id=options.get("parent", ""),
        wants=tuple(one for one in options.get("wants", "").split(",") if one),
        image=options.get("image", ""),
        finished_dependencies=pairs(options.get("history", "")),
    )


_COMMANDS: dict[str, Callable[[Words], Command]] = {
    "submit": _submit,
    "batch": _batch,
    "cancel": _cancel,
    "pause": _pause,
    "update": _update,
    "all": _all,
    "resume": _resume,
    "preempt": lambda words: PreemptJob(caller=words.caller, job_id=words.name),
    "drain": _drain,
    "health": _health,
    "enable": lambda words: EnableNode(caller=words.caller, node_id=words.name),
    "roll": _roll,
    "noroll": lambda words: CancelRollingDrain(caller=words.caller, drain_id=words.name),
    "remove": lambda words: RemoveNode(caller=words.caller, node_id=words.name),
    "queue": _queue,
    "noqueue": lambda words: RemoveQueue(caller=words.caller, name=words.name),
    "renew": lambda words: Renew(),
    "key": _key,
    "recall": _recall,
}
