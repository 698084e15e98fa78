"""Judges a submitted job beyond the bounds of its fields, and makes the core's command of it.

What depends on the cluster's state (does it ever fit, do its dependencies exist) is the core's to judge.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core.commands import Caller, SubmitJob
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    RUNS_CONTAINERS,
    WHOLE,
    Demand,
    OnHang,
    OnUnreachable,
    Policy,
)
from coordinator.core.replacing import replace
from coordinator.rpc.bounds import Seen, see
from coordinator.rpc.convert import DEFAULT_PRIORITY, DEFAULT_QUEUE, YEAR_9999_S
from coordinator.rpc.errors import quoted
from coordinator.rpc.memo import Memo
from coordinator.runtime.refusal import Refusal, Violation
from scaimind.service.reach.keys import image_key, key_of, repository_key
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

GB = 1_000_000_000
DEFAULT_GRACE_S = 120
DOCUMENT_BYTES_MAX = 512 * 1024  # a page of a hundred jobs must fit into one message
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_NAMES = frozenset(
    (
        "CUDA_DEVICE_ORDER",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
        "CUDA_VISIBLE_DEVICES",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NNODES",
        "NODE_RANK",
        "RANK",
        "WORLD_SIZE",
    )
)
IMAGE = re.compile(
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
OWN_PREFIXES = ("MIND_", "STORAGE_MOUNT_")
QUOTING = frozenset("'\"\\")
WANTS_MAX = 32
NOBODY = Caller(tenant_id="", user_id="")
_ON_HANG = {
    job_pb2.SchedulingConfig.RESTART: OnHang.RESTART,
    job_pb2.SchedulingConfig.STOP: OnHang.STOP,
}
ROUNDING = 1e-6  # of what is written in decimals
_Training = job_pb2.TrainingConfig
_Framework = job_pb2.Framework
WITH_CREDENTIAL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@")
WITH_SCHEME = re.compile(r"(?!(?:file|module)://)[A-Za-z][A-Za-z0-9+.-]*://", re.IGNORECASE)
UNSUPPORTED = {
    _Framework.MEGATRON: frozenset(
        {_Training.LORA, _Training.QLORA, _Training.DPO, _Training.RLHF}
    ),
}


class Jobs:
    """Judges jobs. What differs by its name, its labels and its hyperparameters alone is judged once, and
    what follows from it is shared."""

    def __init__(self) -> None:
        self._known: Memo[SubmitJob] = Memo()

    def command(
        self, request: SubmitJobRequest, seen: Seen, *, caller: Caller, job_id: str
    ) -> SubmitJob:
        """The command of one of them, as it was seen. Raises Refusal."""
        if len(seen.document) > DOCUMENT_BYTES_MAX:
            text = f"the job is larger than {DOCUMENT_BYTES_MAX >> 10} KiB"
            raise Refusal(Reason.INVALID_ARGUMENT, text)
        known = self._known.get(seen.alike)
        if known is None:
            known = judge(request)
            self._known.put(seen.alike, known)
        return replace(
            known,
            caller=caller,
            job_id=job_id,
            name=request.name,
            document=seen.document,
            labels=seen.labels,
            validate_only=request.validate_only,
        )


def judge(request: SubmitJobRequest) -> SubmitJob:
    """What a job asks for whose fields are within their bounds: the command, of nobody yet.

    Raises:
        Refusal: INVALID_ARGUMENT with every fault that was found, each with its field.
    """
    faults = [
        *_training_faults(request),
        *_uri_faults(request),
        *_supply_faults(request),
        *_resource_faults(request),
        *_schedule_faults(request),
    ]
    if faults:
        raise Refusal.of_fields(tuple(faults))
    training, queue_name = request.training_config, request.scheduling_config.queue_name
    return SubmitJob(
        caller=NOBODY,
        job_id="",
        name="",
        demand=_demand(request.resource_config, training),
        policy=_policy(request),
        wants=_wants(request),
        image=repository_key(image) if (image := request.resource_config.image) else "",
        document=b"",
        priority=training.priority if training.HasField("priority") else DEFAULT_PRIORITY,
        queue_name=queue_name or DEFAULT_QUEUE,
    )


def submit_command(request: SubmitJobRequest, *, caller: Caller, job_id: str) -> SubmitJob:
    """The command of a submit that did not come as it is; its fields are within their bounds.

    Raises:
        Refusal: INVALID_ARGUMENT with every fault that was found, each with its field.
    """
    seen = see(request.SerializeToString())
    return Jobs().command(request, seen, caller=caller, job_id=job_id)


def _training_faults(request: SubmitJobRequest) -> list[Violation]:
    training = request.training_config
    faults: list[Violation] = []
    if not training.base_model.model_id.strip():
        faults.append(("training_config.base_model.model_id", "must not be empty"))
    if not request.data_config.sources:
        faults.append(("data_config.sources", "at least one source is needed"))
    framework = training.framework
    if framework.type == _Framework.CUSTOM and not framework.custom_script_path.strip():
        faults.append(
            ("training_config.framework.custom_script_path", "is needed with framework CUSTOM")
        )
    if "\0" in framework.custom_script_path:
        faults.append(("training_config.framework.custom_script_path", "must not contain NUL"))
    if framework.type == _Framework.CUSTOM:
        faults += _args_faults(framework.config.get("args", ""))
    if training.training_type in UNSUPPORTED.get(framework.type, frozenset()):
        kind = _Training.TrainingType.Name(training.training_type)
        name = _Framework.Type.Name(framework.type)
        faults.append(("training_config.framework.type", f"{name} does not support {kind}"))
    for name, value in sorted(training.environment.items()):
        field = f"training_config.environment[{quoted(name)}]"
        if not ENVIRONMENT_NAME.fullmatch(name):
            faults.append((field, "is not a name of a variable"))
        elif name in OWN_NAMES or name.startswith(OWN_PREFIXES):
            faults.append((field, "is set by the node agent"))
        elif "\0" in value:
            faults.append((field, "must not contain NUL"))
    return faults


def _args_faults(text: str) -> Iterable[Violation]:
    field = 'training_config.framework.config["args"]'
    if "\0" in text:
        yield field, "must not contain NUL"
    if QUOTING.isdisjoint(text):
        return
    try:
        shlex.split(text)
    except ValueError as error:
        yield field, f"cannot be split as a shell does: {error}"


def _uri_faults(request: SubmitJobRequest) -> list[Violation]:
    training, output = request.training_config, request.output_config
    places = [
        ("training_config.framework.custom_script_path", training.framework.custom_script_path),
        ("training_config.framework.source_uri", training.framework.source_uri),
        ("training_config.resume_from_checkpoint", training.resume_from_checkpoint),
        ("output_config.output_uri", output.output_uri),
        ("output_config.checkpoint_uri", output.checkpoint_uri),
    ]
    sources = enumerate(request.data_config.sources)
    places += [(f"data_config.sources[{n}].path", source.path) for n, source in sources]
    mounts = enumerate(request.data_config.storage_mounts)
    places += [(f"data_config.storage_mounts[{n}].source_uri", one.source_uri) for n, one in mounts]
    text = "must not hold a user or password: a job's record is kept, and shown to its tenant"
    return [(field, text) for field, uri in places if WITH_CREDENTIAL.match(uri)]


def _supply_faults(request: SubmitJobRequest) -> list[Violation]:
    """What is wrong with the job's code and its mounts, whatever node it comes to."""
    faults: list[Violation] = []
    framework = request.training_config.framework
    script = framework.custom_script_path
    if framework.source_uri and (script.startswith("/") or WITH_SCHEME.match(script)):
        text = "with source_uri it is a path in there, or module://NAME"
        faults.append(("training_config.framework.custom_script_path", text))
    for number, mount in enumerate(request.data_config.storage_mounts):
        field = f"data_config.storage_mounts[{number}]"
        path = mount.mount_path
        if path and (not path.startswith("/") or posixpath.normpath(path) != path or path == "/"):
            faults.append((f"{field}.mount_path", "must be a whole path, from / on"))
        if not mount.read_only and WITH_SCHEME.match(mount.source_uri):
            faults.append(
                (f"{field}.read_only", "must be true: what is fetched is not written back")
            )
        if "\0" in mount.source_uri + path:
            faults.append((field, "must not contain NUL"))
    return faults


def _wants(request: SubmitJobRequest) -> tuple[str, ...]:
    """Hashes of what the job names that some nodes may have at hand already."""
    config, framework = request.data_config, request.training_config.framework
    uris = [f"{one.type}://{one.path}" if _needs_type(one) else one.path for one in config.sources]
    uris += [one.source_uri for one in config.storage_mounts]
    uris += [framework.source_uri, framework.custom_script_path]
    keys = [key_of(uri) for uri in uris if WITH_SCHEME.match(uri)]
    if request.resource_config.image:
        keys.insert(0, image_key(request.resource_config.image))
    return tuple(sorted(set(keys[:WANTS_MAX])))


def _needs_type(source: job_pb2.DataSource) -> bool:
    """Whether the kind of store beside a path is what makes it a URI."""
    return "://" not in source.path and source.type.strip().lower() not in ("", "local", "file")


def _resource_faults(request: SubmitJobRequest) -> list[Violation]:
    resources = request.resource_config
    faults: list[Violation] = []
    count = resources.gpu_count
    if count < 1:
        return [("resource_config.gpu_count", "must be at least 1")]
    if (text := _fraction_fault(resources)) is not None:
        faults.append(("resource_config.gpu_fraction", text))
    if resources.gpu_type and not all(resources.gpu_type.split("|")):
        faults.append(("resource_config.gpu_type", "types stand between single bars"))
    if resources.image and not IMAGE.fullmatch(resources.image):
        text = "is no image: NAME, NAME:TAG or NAME@sha256:DIGEST, in lower case"
        faults.append(("resource_config.image", text))
    nodes = resources.node_count
    if nodes and count % nodes:
        faults.append(
            (
                "resource_config.node_count",
                f"{count} devices cannot be shared equally by {nodes} nodes",
            )
        )
    world = request.training_config.framework.distributed.world_size
    field = "training_config.framework.distributed.world_size"
    if world and count % world:
        faults.append((field, f"must divide gpu_count ({count})"))
    elif world and nodes and world % nodes:
        faults.append((field, f"{world} ranks cannot be shared equally by {nodes} nodes"))
    return faults


def _selector(resources: job_pb2.ResourceConfig) -> tuple[tuple[str, str], ...]:
    """Labels that the job's nodes carry: those that it names, and that they run containers if it needs one."""
    wanted = dict(resources.node_selector)
    if resources.image:
        wanted.setdefault(*RUNS_CONTAINERS)
    return tuple(sorted(wanted.items()))


def _fraction_fault(resources: job_pb2.ResourceConfig) -> str | None:
    given = resources.gpu_fraction * WHOLE
    if not resources.HasField("gpu_fraction") or given == WHOLE:
        return None
    if resources.gpu_count != 1:
        return "less than 1 is only possible with gpu_count 1"
    if round(given) < 1 or abs(given - round(given)) > ROUNDING:
        return "must be a whole number of thousandths"
    return None


def _schedule_faults(request: SubmitJobRequest) -> list[Violation]:
    faults: list[Violation] = []
    both = {*request.scheduling_config.retry_on} & {*request.scheduling_config.fail_on}
    if both:
        name = job_pb2.JobError.Category.Name(min(both))
        faults.append(("scheduling_config.retry_on", f"{name} is in fail_on too"))
    for name in ("start_after", "deadline"):
        time: Timestamp = getattr(request.scheduling_config, name)
        if not (0 <= time.seconds <= YEAR_9999_S and 0 <= time.nanos < 1_000_000_000):
            faults.append((f"scheduling_config.{name}", "must be between 1970 and 9999"))
    return faults


def _demand(resources: job_pb2.ResourceConfig, training: job_pb2.TrainingConfig) -> Demand:
    return Demand(
        device_count=resources.gpu_count,
        thousandths=(
            round(resources.gpu_fraction * WHOLE) if resources.HasField("gpu_fraction") else WHOLE
        ),
        device_type="|".join(sorted(set(resources.gpu_type.split("|")))),
        device_memory_bytes=int(resources.gpu_memory_gb * GB),
        node_count=resources.node_count,
        world_size=training.framework.distributed.world_size,
        cpu_count=resources.cpu_count,
        memory_bytes=int(resources.memory_gb * GB),
        disk_bytes=int(resources.disk_gb * GB),
        node_selector=_selector(resources),
        within=resources.within,
        exclusive=resources.exclusive,
    )


def _policy(request: SubmitJobRequest) -> Policy:
    scheduling = request.scheduling_config
    replace = scheduling.on_unreachable == job_pb2.SchedulingConfig.REPLACE
    grace_s = DEFAULT_GRACE_S
    if scheduling.HasField("checkpoint_grace_seconds"):
        grace_s = scheduling.checkpoint_grace_seconds
    return Policy(
        max_retries=request.training_config.max_retries,
        retry_on_exit_codes=tuple(sorted(scheduling.retry_on_exit_codes)),
        retry_on=_names(scheduling.retry_on),
        fail_on=_names(scheduling.fail_on),
        preemptible=scheduling.preemptible if scheduling.HasField("preemptible") else True,
        requeue_on_preemption=(
            scheduling.requeue_on_preemption
            if scheduling.HasField("requeue_on_preemption")
            else True
        ),
        start_after_ms=_ms(scheduling, "start_after"),
        deadline_ms=_ms(scheduling, "deadline"),
        depends_on=tuple(scheduling.depends_on),
        expected_duration_ms=scheduling.expected_duration_seconds * 1000,
        max_runtime_ms=request.resource_config.max_runtime_seconds * 1000,
        grace_ms=grace_s * 1000,
        on_hang=_ON_HANG.get(scheduling.on_hang, OnHang.REPORT),
        on_unreachable=OnUnreachable.REPLACE if replace else OnUnreachable.KEEP,
    )


def _names(categories: Iterable[job_pb2.JobError.Category.ValueType]) -> tuple[str, ...]:
    return tuple(sorted(job_pb2.JobError.Category.Name(one) for one in categories))


def _ms(scheduling: job_pb2.SchedulingConfig, name: str) -> int:
    if not scheduling.HasField(name):  # type: ignore[arg-type]
        return 0
    time: Timestamp = getattr(scheduling, name)
    return time.ToMilliseconds()
