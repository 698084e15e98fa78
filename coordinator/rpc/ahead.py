"""What agents are told of jobs before these are granted anything: what to bring near, and what an image is."""

from __future__ import annotations

from coordinator.core.records import Job
from coordinator.rpc.documents import Documents
from coordinator.rpc.fetching import Fetching
from coordinator.runtime.view import View
from scaimind.agent.v1 import agent_service_pb2 as api
from scaimind.service.reach.keys import pinned
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

JOBS_MAX = 4  # of a node


class Ahead:
    """Knows for whom devices of nodes are set aside."""

    def __init__(self, view: View, documents: Documents, fetching: Fetching) -> None:
        self._view = view
        self._documents = documents
        self._fetching = fetching

    async def of(self, node_id: str) -> list[api.LeaseSpec]:
        """What the jobs name that wait for devices of a node, the oldest few."""
        jobs = self._view.expected_on(node_id)[:JOBS_MAX]
        if not jobs:
            return []
        bodies = await self._documents.bodies([job.job_id for job in jobs])
        return [
            self._spec(job, SubmitJobRequest.FromString(bodies[job.job_id]))
            for job in jobs
            if job.job_id in bodies
        ]

    def _spec(self, job: Job, submitted: SubmitJobRequest) -> api.LeaseSpec:
        spec = api.LeaseSpec(
            job_id=job.job_id, tenant_id=job.tenant_id, tokens=self._fetching.tokens(job.job_id)
        )
        own, data = spec.job, submitted.data_config
        own.resource_config.image = submitted.resource_config.image
        own.data_config.sources.extend(data.sources)
        own.data_config.storage_mounts.extend(data.storage_mounts)
        framework = submitted.training_config.framework
        own.training_config.framework.source_uri = framework.source_uri
        own.training_config.framework.custom_script_path = framework.custom_script_path
        pin_image(spec, job)
        return spec


def pin_image(spec: api.LeaseSpec, job: Job | None) -> None:
    """Names the image by what it was found to be, where that is known."""
    needs = spec.job.resource_config
    if job is not None and job.image_digest and needs.image:
        needs.image = pinned(needs.image, job.image_digest)
