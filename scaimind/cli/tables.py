"""Answers as tables for people. Nothing here is needed by programs: they ask for JSON."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from scaimind.cli import failure
from scaimind.cli.printer import Rows
from scaimind.cli.text import ago, duration, number, optional_seconds, size

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from scaimind.v1 import job_pb2, key_service_pb2, node_pb2
    from scaimind.v1 import mind_coordinator_pb2 as pb


AGAIN = {
    "SAME": "; decided again it is the same",
    "DIFFERENT": "; decided again it would be different",
}


def enum(message: "Message", field: str = "status") -> str:
    """An enum field by name; its number where only a newer coordinator knows it."""
    number = getattr(message, field)
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    known = kind.values_by_number.get(number) if kind else None
    return known.name if known else str(number)


def _devices(resources: "job_pb2.ResourceConfig") -> str:
    count = float(resources.gpu_count)
    if resources.HasField("gpu_fraction"):
        count *= resources.gpu_fraction
    return f"{count:g} x {resources.gpu_type or 'any'}"


def _pairs(pairs: Iterable[tuple[str, object]]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(pairs))


def jobs(page: "pb.ListJobsResponse") -> Rows:
    """One line for each job."""
    cells = [
        (
            job.job_id,
            job.name,
            enum(job),
            f"{job.progress:.0f} %",
            _devices(job.resource_config),
            job.queue_name,
            ago(job.created_at),
        )
        for job in page.jobs
    ]
    note = "" if cells else "no jobs"
    if page.next_page_token:
        most = f"{page.total_count}{' or more' if page.total_is_least else ''}"
        note = f"{len(cells)} of {most}; go on with --page-token {page.next_page_token}"
    headers = ("JOB", "NAME", "STATUS", "PROGRESS", "DEVICES", "QUEUE", "CREATED")
    return Rows(headers if cells else (), cells, note=note)


def job(job: "job_pb2.Job") -> Rows:
    """Everything that people ask of one job; lines without a value are left out."""
    reason = job.status_reason
    cells = [
        ("job", job.job_id),
        ("name", job.name),
        ("status", enum(job)),
        ("reason", " ".join(filter(None, (reason.code, reason.message)))),
        ("progress", _progress(job)),
        ("devices", _devices(job.resource_config)),
        ("queue", f"{job.queue_name}, priority {job.priority}"),
        ("labels", _pairs(job.labels.items())),
        ("retry of", job.parent_job_id),
        ("image", _image(job)),
        ("attempt", _attempt(job)),
        ("metrics", _metrics(job)),
        *_checkpoints(job),
        ("model", job.output_model_uri),
        ("error", _error(job)),
        *failure.rows(job),
        *_usage(job.usage),
        ("owner", f"{job.tenant_id}/{job.user_id}"),
        ("created", ago(job.created_at)),
        ("started", ago(job.started_at)),
        ("completed", ago(job.completed_at)),
    ]
    return Rows((), [cell for cell in cells if cell[1]])


def _progress(job: "job_pb2.Job") -> str:
    parts = [f"{job.progress:.1f} %"]
    if job.HasField("eta_seconds"):
        parts.append(f"{duration(job.eta_seconds)} to go")
    if job.estimated_wait_seconds > 0:
        parts.append(f"starts in {duration(job.estimated_wait_seconds)}")
    return ", ".join(parts)


def _image(job: "job_pb2.Job") -> str:
    image, digest = job.resource_config.image, job.image_digest
    return image if digest in image else f"{image}, which is {digest}"


def _attempt(job: "job_pb2.Job") -> str:
    if not job.HasField("attempt"):
        return ""
    return f"{job.attempt.number} on {', '.join(job.attempt.node_ids) or 'no node'}"


def _metrics(job: "job_pb2.Job") -> str:
    point = job.latest_metrics
    if not job.HasField("latest_metrics"):
        return ""
    return f"step {point.step}: {_values(point)}"


def _values(point: "job_pb2.MetricPoint") -> str:
    return _pairs((key, number(value)) for key, value in point.values.items())


def _checkpoints(job: "job_pb2.Job") -> list[tuple[str, str]]:
    return [
        ("checkpoint", f"step {each.step}, {size(each.size_bytes)}, {each.uri}")
        for each in job.checkpoints
    ]


def _usage(usage: "job_pb2.JobUsage") -> list[tuple[str, str]]:
    """Device time by class, then what was lost."""
    parts = ", ".join(
        f"{field.name.removesuffix('_us')} {duration(amount / 1e6)}"
        for field, amount in usage.time.ListFields()
        if field.name != "leased_us"
    )
    text = f"{duration(usage.time.leased_us / 1e6)}: {parts}" if parts else ""
    return [("device time", text)] + [
        (
            "lost",
            f"{duration(loss.redone_us / 1e6)} of attempt {loss.attempt}: "
            f"{loss.cause} {loss.cause_id}".rstrip(),
        )
        for loss in usage.lost
    ]


def _error(job: "job_pb2.Job | pb.Evaluation") -> str:
    if not job.HasField("error"):
        return ""
    fault = job.error
    where = f" (exit code {fault.exit_code})" if fault.HasField("exit_code") else ""
    return f"{enum(fault, 'category')}: {fault.message}{where}"


def submitted(answer: "pb.SubmitJobResponse") -> Rows:
    """What became of a submit."""
    return Rows((), [(answer.job_id or "valid", enum(answer), answer.message)])


def batch(places: Sequence[str]) -> Callable[["pb.BatchSubmitJobsResponse"], Rows]:
    """One line for each job of a batch, and one for each field at fault."""

    def rows(answer: "pb.BatchSubmitJobsResponse") -> Rows:
        cells = []
        for place, result in zip(places, answer.results, strict=False):
            if result.HasField("job"):
                job = result.job
                cells.append((place, job.job_id or "valid", enum(job), job.message))
                continue
            cells.append((place, "refused", result.error.code, result.error.message))
            cells += [
                ("", "", "", f"{each.field}: {each.message}") for each in result.error.details
            ]
        return Rows(("FILE", "JOB", "STATUS", "MESSAGE"), cells)

    return rows


def retried(answer: "pb.RetryJobResponse") -> Rows:
    """The child of a retry."""
    cells = (answer.job_id or "valid", enum(answer), answer.message)
    return Rows((), [cells])


def acted(job: "job_pb2.Job") -> Rows:
    """A job after an action."""
    reason = job.status_reason
    return Rows((), [(job.job_id, enum(job), reason.message or reason.code)])


def acted_on(answer: "pb.ActOnJobsResponse") -> Rows:
    """One line for each job that was acted on, or would be."""
    cells = [
        (one.job_id, "refused", one.error.message)
        if one.HasField("error")
        else (one.job_id, enum(one), "")
        for one in answer.results
    ]
    note = "more jobs match: run it again" if answer.more else f"{len(cells)} jobs"
    return Rows(("JOB", "STATUS", "MESSAGE") if cells else (), cells, note=note)


def metrics(answer: "pb.GetJobMetricsResponse") -> Rows:
    """One line for each point, one column for each value."""
    names = sorted({name for point in answer.points for name in point.values})
    cells = [
        (str(point.step), *(_cell(point, name) for name in names), ago(point.timestamp))
        for point in answer.points
    ]
    note = f"{len(cells)} of {answer.total_points} points" if cells else "no metrics yet"
    return Rows(
        ("STEP", *(name.upper() for name in names), "WHEN") if cells else (), cells, note=note
    )


def job_devices(answer: "pb.GetJobMetricsResponse") -> Rows:
    """One line for each device that a job holds, with what it measured last."""
    cells = [
        (
            device.node_id,
            device.device_id,
            _busy(device),
            size(device.telemetry.memory_used_bytes),
            _watts(device.telemetry),
        )
        for device in answer.devices
    ]
    return Rows(("NODE", "DEVICE", "BUSY", "MEMORY", "POWER") if cells else (), cells)


def _watts(telemetry: "node_pb2.DeviceTelemetry") -> str:
    return f"{telemetry.power_watts:.0f} W" if telemetry.HasField("power_watts") else ""


def _cell(point: "job_pb2.MetricPoint", name: str) -> str:
    return number(point.values[name]) if name in point.values else ""


def point(point: "job_pb2.MetricPoint") -> str:
    """One point in one line."""
    return f"step {point.step}  {point.progress:.1f} %  {_values(point)}"


def explanation(answer: "pb.ExplainJobResponse") -> Rows:
    """Why a job waits."""
    cells = [("job", answer.job_id), ("status", enum(answer))]
    if answer.position:
        cells.append(("position", str(answer.position)))
        cells.append(("starts in", f"{optional_seconds(answer, 'eta_p50_seconds')} (median)"))
    if answer.after_jobs_count:
        strangers = answer.after_jobs_count - len(answer.after_job_ids)
        others = [f"{strangers} of other tenants"] if strangers else []
        cells.append(("starts with the end of", ", ".join([*answer.after_job_ids, *others])))
    cells += [("blocked by", f"{each.message} ({each.code})") for each in answer.blockers]
    for verdict in answer.nodes:
        says = "fits" if verdict.fits else f"{verdict.message} ({verdict.code})"
        cells.append((f"node {verdict.node_id}", says))
    for each in answer.counterfactuals:
        cells.append(("sooner with", f"{each.change}: {optional_seconds(each, 'eta_seconds')}"))
    if answer.untried_changes_count:
        text = f"{answer.untried_changes_count} other changes are being tried; ask again"
        cells.append(("sooner with", text))
    for one in answer.preemptions:
        cells.append((f"preempted {ago(one.at)}", _preempted(one)))
        cells += [("had stayed with", _spared(each)) for each in one.would_have_stayed]
    return Rows((), cells)


def _spared(one: "pb.Spared") -> str:
    strangers = one.instead_count - len(one.instead_job_ids)
    others = [f"{strangers} of other tenants"] if strangers else []
    instead = ", ".join([*one.instead_job_ids, *others]) or "none of those that were considered"
    return f"{one.change}: {instead} would have gone instead"


def _awaited(one: "pb.Preemption") -> str:
    if not one.HasField("checkpoint_awaited_until"):
        return ""
    wait_s = one.checkpoint_awaited_until.ToSeconds() - one.at.ToSeconds()
    return f"its next checkpoint was near and awaited for up to {wait_s} s; "


def _preempted(one: "pb.Preemption") -> str:
    other = one.for_job_id or "a job of another tenant"
    lost = f"it lost {number(one.lost_device_seconds)} device-seconds"
    if not one.for_devices:
        which = f" of {', '.join(one.node_ids)}" if one.node_ids else ""
        said = f" ({one.reason})" if one.reason else ""
        return f"{one.rule}{which}{said}; {_awaited(one)}{lost}"
    return (
        f"{one.rule}: {other} needed {one.for_devices:g} devices with priority {one.for_priority}; "
        f"{lost}; {_awaited(one)}"
        f"{one.others_count} {'other was' if one.others_count == 1 else 'others were'} considered"
        + AGAIN.get(one.decided_again, "")
    )


def queues(answer: "pb.GetQueueResponse") -> Rows:
    """Every job that waits."""
    cells = [
        (
            queue.queue_name,
            str(job.position),
            job.job_id,
            job.name,
            enum(job),
            str(job.priority),
            f"{job.gpu_count * (job.gpu_fraction or 1):g} x {job.gpu_type or 'any'}",
            optional_seconds(job, "estimated_wait_seconds"),
            job.status_reason.message or job.status_reason.code,
        )
        for queue in answer.queues
        for job in queue.jobs
    ]
    headers = ("QUEUE", "PLACE", "JOB", "NAME", "STATUS", "PRIORITY", "DEVICES", "WAIT", "REASON")
    note = f"{answer.depth} waiting, {answer.running} running"
    return Rows(headers if cells else (), cells, note=note)


def queue_settings(*queues: "pb.QueueSettings") -> Rows:
    """One line for each queue."""
    cells = [
        (
            one.name,
            one.parent,
            type(one).Order.Name(one.order),
            str(one.weight),
            str(one.guaranteed_devices or ""),
            f"{one.held_devices:g} of {one.max_devices}"
            if one.max_devices
            else f"{one.held_devices:g}",
            ", ".join(f"{tenant} {most}" for tenant, most in sorted(one.tenant_limits.items())),
            ", ".join(
                word
                for word, is_so in (
                    ("closed", one.closed),
                    ("cordoned", one.cordoned),
                    ("preempts", one.preempts),
                )
                if is_so
            ),
        )
        for one in queues
    ]
    headers = ("QUEUE", "BELOW", "ORDER", "WEIGHT", "GUARANTEED", "HOLDS", "TENANTS", "")
    return Rows(headers if cells else (), cells, note="" if cells else "no queue was set")


def queues_set(page: "pb.ListQueuesResponse") -> Rows:
    """A page of queues."""
    found = queue_settings(*page.queues)
    if not page.next_page_token:
        return found
    shown = f"{len(page.queues)} of {page.total_count}"
    note = f"{shown}; go on with --page-token {page.next_page_token}"
    return Rows(found.headers, found.cells, note=note)


def queue_removed(answer: "pb.RemoveQueueResponse") -> Rows:
    """What became of the queue."""
    return Rows((), [(answer.name, "is as by default")])


def cluster(answer: "pb.GetClusterResponse") -> Rows:
    """Totals."""
    cells = [
        ("nodes", f"{answer.ready_nodes} of {answer.total_nodes} ready, {answer.free_nodes} free"),
        *(
            (
                each.type,
                f"{each.free} of {each.total} free{' (simulated)' if each.simulated else ''}",
            )
            for each in answer.accelerators
        ),
        ("jobs", _pairs(answer.jobs_by_status.items()) or "none"),
        ("waiting", str(answer.queue_depth)),
    ]
    return Rows((), cells)


def nodes(page: "pb.ListNodesResponse") -> Rows:
    """One line for each node."""
    cells = [
        (
            node.node_id,
            enum(node),
            _node_devices(node),
            f"{node.free_device_count} of {node.device_count}",
            str(len(node.running_job_ids)),
            enum(node.health, "state"),
            ago(node.last_seen_at),
        )
        for node in page.nodes
    ]
    note = "" if cells else "no nodes"
    if page.next_page_token:
        note = f"{len(cells)} of {page.total_count}; go on with --page-token {page.next_page_token}"
    headers = ("NODE", "STATUS", "DEVICES", "FREE", "JOBS", "HEALTH", "SEEN")
    return Rows(headers if cells else (), cells, note=note)


def _node_devices(node: "node_pb2.Node") -> str:
    kinds = sorted({device.type for device in node.devices})
    return f"{', '.join(kinds) or 'none'}{' (simulated)' if node.simulated else ''}"


def node(node: "node_pb2.Node") -> Rows:
    """One node."""
    reason = node.status_reason
    cells = [
        ("node", node.node_id),
        ("status", enum(node)),
        ("reason", " ".join(filter(None, (reason.code, reason.message)))),
        ("address", node.address),
        ("machine", f"{node.cpu_count} cores, {size(node.memory_bytes)}"),
        ("simulated", "yes" if node.simulated else ""),
        ("labels", _pairs(node.labels.items())),
        ("jobs", ", ".join(node.running_job_ids)),
        ("agent", node.agent_version),
        ("seen", ago(node.last_seen_at)),
    ]
    return Rows((), [cell for cell in cells if cell[1]])


def devices(node: "node_pb2.Node") -> Rows:
    """One line for each device of a node."""
    cells = [
        (
            str(device.index),
            device.type,
            device.model,
            size(device.memory_bytes),
            _busy(device),
            "yes" if device.healthy else "no",
            device.job_id,
        )
        for device in node.devices
    ]
    headers = ("DEVICE", "TYPE", "MODEL", "MEMORY", "BUSY", "HEALTHY", "JOB")
    return Rows(headers if cells else (), cells)


def _busy(device: "node_pb2.Device | pb.JobDevice") -> str:
    telemetry = device.telemetry
    known = telemetry.HasField("utilization_percent")
    return f"{telemetry.utilization_percent:.0f} %" if known else ""


def removed(answer: "pb.RemoveNodeResponse") -> Rows:
    """A node after it was removed."""
    return Rows((), [(answer.node_id, "removed")])


def enabled(node: "node_pb2.Node") -> Rows:
    """A node after it was enabled."""
    return Rows((), [(node.node_id, enum(node))])


def evaluation_submitted(answer: "pb.SubmitEvaluationResponse") -> Rows:
    """A queued evaluation."""
    return Rows((), [(answer.evaluation_id, enum(answer), answer.message)])


def evaluation(answer: "pb.Evaluation") -> Rows:
    """One evaluation and its scores."""
    cells = [
        ("evaluation", answer.evaluation_id),
        ("job", answer.job_id),
        ("status", enum(answer)),
        ("model", answer.model_uri),
        ("error", _error(answer)),
    ]
    for result in answer.results:
        scores = _pairs((key, number(value)) for key, value in result.scores.items())
        cells.append((result.name, f"{scores} over {result.num_samples} samples"))
    return Rows((), [cell for cell in cells if cell[1]])


def validity(answer: "pb.ValidateDataResponse") -> Rows:
    """One line for each data source."""
    cells = [
        (
            each.path,
            "yes" if each.reachable else "no",
            "yes" if each.parseable else "no",
            each.format,
            str(each.num_samples) if each.HasField("num_samples") else "",
            size(each.size_bytes) if each.HasField("size_bytes") else "",
            each.error,
        )
        for each in answer.results
    ]
    headers = ("SOURCE", "REACHABLE", "PARSEABLE", "FORMAT", "SAMPLES", "SIZE", "ERROR")
    return Rows(headers, cells, note="valid" if answer.valid else "not valid")


def cache(answer: "pb.GetDataCacheResponse") -> Rows:
    """One line for each entry of the data caches."""
    cells = [
        (node.node_id, each.uri, size(each.size_bytes), ago(each.last_used_at))
        for node in answer.nodes
        for each in node.entries
    ]
    headers = ("NODE", "URI", "SIZE", "USED")
    of = f"{len(answer.nodes)} node{'' if len(answer.nodes) == 1 else 's'}"
    note = f"{answer.entries_count} entries, {size(answer.total_bytes)}, on {of}"
    return Rows(headers if cells else (), cells, note=note)


def new_key(answer: "key_service_pb2.CreateKeyResponse") -> Rows:
    """A new key, shown this once."""
    info = answer.info
    cells = [
        ("key", answer.key),
        ("id", info.key_id),
        ("tenant", info.tenant_id),
        ("user", info.user_id),
        ("permissions", _permissions(info)),
    ]
    return Rows((), cells, note="the key is not shown again")


def keys(answer: "key_service_pb2.ListKeysResponse") -> Rows:
    """One line for each key."""
    cells = [
        (
            each.key_id,
            each.tenant_id,
            each.user_id,
            _permissions(each),
            ago(each.created_at),
            ago(each.expires_at) or "never",
            ago(each.revoked_at),
        )
        for each in answer.keys
    ]
    headers = ("KEY", "TENANT", "USER", "PERMISSIONS", "CREATED", "EXPIRES", "REVOKED")
    note = "" if cells else "no keys"
    if answer.next_page_token:
        shown = f"{len(cells)} of {answer.total_count}"
        note = f"{shown}; go on with --page-token {answer.next_page_token}"
    return Rows(headers if cells else (), cells, note=note)


def revoked(answer: "key_service_pb2.RevokeKeyResponse") -> Rows:
    """A revoked key."""
    return Rows((), [(answer.info.key_id, "revoked")])


def _permissions(key: "key_service_pb2.ApiKey") -> str:
    from scaimind.v1.options_pb2 import Permission

    return " ".join(Permission.Name(each) for each in key.permissions)
