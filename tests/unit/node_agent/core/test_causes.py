"""What the last lines of real programs are taken for."""

from __future__ import annotations

import pytest

from node_agent.core.causes import Category, category_of

LINES = {
    Category.GPU_OOM: [
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB",
        "[rank3]: torch.OutOfMemoryError: CUDA out of memory.",
        "RuntimeError: CUDA error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory",
    ],
    Category.GPU_HARDWARE: [
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution",
        "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.",
        "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    ],
    Category.HOST_OOM: [
        "MemoryError",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
        "OSError: [Errno 12] Cannot allocate memory",
        "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed. ",
        "ERROR: Unexpected bus error in worker; might be caused by insufficient shared memory (shm).",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array",
    ],
    Category.STORAGE: [
        "OSError: [Errno 28] No space left on device: '/shared/step-5'",
        "OSError: [Errno 5] Input/output error",
        "OSError: [Errno 122] Disk quota exceeded",
        "cp: error writing 'x': No space left on device",
        "safetensors_rust.SafetensorError: IoError(Os { code: 28, os error 28 })",
    ],
    Category.NETWORK: [
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp",
        "ncclSystemError: System call (e.g. socket, malloc)",
        "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE)",
        "RuntimeError: [../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:1",
        "torch.distributed.DistNetworkError: The client socket has timed out after 600s",
        "OSError: [Errno 113] No route to host",
    ],
    Category.USER_CODE: [
        "ValueError: loss is NaN",
        "ModuleNotFoundError: No module named 'trl'",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: CUDA error: no CUDA-capable device is detected",
        "urllib3.exceptions.NewConnectionError: [Errno 111] Connection refused",
        "Killed",
        "",
    ],
}


@pytest.mark.parametrize(
    ("line", "category"), [(line, kind) for kind, lines in LINES.items() for line in lines]
)
def test_a_line_is_taken_for_what_it_means(line: str, category: Category) -> None:
    assert category_of(["epoch 3", line]) is category


def test_the_newest_line_that_says_anything_decides() -> None:
    memory, network = LINES[Category.GPU_OOM][0], LINES[Category.NETWORK][0]
    assert category_of([network, memory, "bye"]) is Category.GPU_OOM
    assert category_of([memory, network]) is Category.NETWORK
    assert category_of([]) is Category.USER_CODE
