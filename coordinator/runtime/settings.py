"""Settings of the coordinator."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from scaimind.service.reach.settings import ReachSettings
from scaimind.service.settings import split_address
from scaimind.service.tls_settings import ServerTlsSettings
from scaimind.service.token_settings import TokenSettings


class CoordinatorSettings(ReachSettings, TokenSettings, ServerTlsSettings):
    """The coordinator: schedules jobs, keeps what it promised, answers over gRPC."""

    grpc: str = Field(default="127.0.0.1:50051", description="address to serve gRPC on")
    data_dir: Path = Field(
        default=Path(".mind"), description="directory of the embedded store, keys and secrets"
    )
    store: str = Field(
        default="sqlite",
        pattern=r"^(sqlite|memory|(redis|rediss|unix)://.+)$",
        description="sqlite (in the data directory), the URL of a Redis that several coordinators "
        "share (redis://, rediss://, unix://), or memory (nothing is kept)",
    )
    lease_ttl_s: float = Field(
        default=3.0,
        ge=0.5,
        le=600,
        description="with a shared store: silence of a leader after which another one takes over",
    )
    advertise: str = Field(
        default="",
        description="with a shared store: HOST:PORT where others reach this one; default: `grpc`",
    )
    api_secret_file: Path | None = Field(
        default=None,
        description="secret that gateways present; default DATA_DIR/gateway.secret, made when missing",
    )
    join_token_file: Path | None = Field(
        default=None,
        description="token that agents present; default DATA_DIR/join.token, made when missing",
    )
    seal_key_file: Path | None = Field(
        default=None,
        description="key with which the store keeps what users submitted; in the clear when not given",
    )
    metrics: str | None = Field(
        default=None, description="HOST:PORT to serve Prometheus metrics on; nowhere by default"
    )
    queue_limit: int = Field(
        default=10_000, ge=1, description="commands that may wait; more are refused as OVERLOADED"
    )
    batch_limit: int = Field(
        default=1_000, ge=1, description="commands decided together and committed once"
    )
    max_live_jobs: int = Field(
        default=200_000, ge=1, description="jobs that may be waiting or running in all"
    )
    all_logs_bytes: int = Field(
        default=64 << 30,
        ge=1 << 20,
        description="log lines of all jobs that are kept; the oldest ended jobs' go (in Redis: 4 GiB)",
    )
    audit_events: int = Field(
        default=1_000_000, ge=1_000, description="lines of the audit that are kept; the oldest go"
    )
    unreachable_after_s: float = Field(
        default=20.0, gt=0, description="silence after which a node is shown as UNREACHABLE"
    )
    replace_after_s: float = Field(
        default=60.0,
        gt=0,
        description="silence of a node after which its jobs with on_unreachable REPLACE may run "
        "elsewhere; their ranks stop by themselves after half of it; more than unreachable_after_s",
    )
    min_run_s: float = Field(
        default=300.0,
        ge=0,
        description="how long a job runs before the scheduler may preempt it; twice as long after each "
        "preemption within a day, up to eight times",
    )
    near_checkpoint_s: float = Field(
        default=600.0,
        ge=0,
        description="how long a preemption waits at most for a checkpoint that by a job's cadence is near, "
        "if its grace is over before; 0: no longer than the grace",
    )
    near_data_s: float = Field(
        default=600.0,
        ge=0,
        description="how long a job waits at most for a node that holds its data, if to fetch them where "
        "devices are free takes longer; 0: not at all",
    )
    blame_users: int = Field(
        default=2,
        ge=0,
        description="of how many users jobs have to fail fast on a node before it is taken out for that; "
        "0: it never is",
    )
    stop_grace_s: float = Field(
        default=3.0, ge=0, description="time that open calls get when the coordinator stops"
    )

    data_roots: str = Field(
        default="",
        description="what callers may have checked as data: folders of this machine and s3://, gs:// "
        "prefixes, parted by commas; {tenant} in one stands for the caller's tenant; default: none",
    )
    data_check_s: float = Field(
        default=20.0, ge=1, le=600, description="seconds that a check of data may take in all"
    )

    @model_validator(mode="after")
    def _gives_up_after_it_shows(self) -> CoordinatorSettings:
        if self.replace_after_s <= self.unreachable_after_s:
            raise ValueError("replace_after_s must be more than unreachable_after_s")
        return self

    @field_validator("metrics")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value


def is_shared(store: str) -> bool:
    """Whether several coordinators may open this store, of which one leads."""
    return "://" in store
