"""What is sent: one job of about forty fields, as people submit them."""

from __future__ import annotations

from typing import Any

from scaimind.client.body import to_message
from scaimind.v1 import mind_coordinator_pb2 as api


def job_body(
    program: str = "/bin/true", *, gpu_count: int = 1, gpu_type: str = ""
) -> dict[str, Any]:
    """A submit body of about forty fields."""
    return {
        "name": "llama-3-8b-support-tone",
        "training_config": {
            "training_type": "LORA",
            "base_model": {
                "model_id": "meta-llama/Llama-3.1-8B-Instruct",
                "revision": "main",
                "source": "hf",
                "dtype": "bfloat16",
            },
            "framework": {
                "type": "CUSTOM",
                "custom_script_path": program,
                "config": {"args": ""},
                "distributed": {"backend": "nccl", "strategy": "ddp"},
            },
            "hyperparameters": {
                "learning_rate": "2e-4",
                "lora_r": "16",
                "lora_alpha": "32",
                "num_train_epochs": "3",
                "warmup_ratio": "0.03",
                "weight_decay": "0.01",
            },
            "environment": {"TOKENIZERS_PARALLELISM": "false", "TEAM": "support"},
            "max_retries": 2,
            "priority": 5,
        },
        "data_config": {
            "sources": [
                {"path": "/dev/null", "type": "local", "split": "train", "format": "jsonl"}
            ],
            "preprocess": {"padding": "longest", "add_eos": True},
            "max_seq_length": 4096,
            "batch_size": 8,
            "gradient_accumulation_steps": 4,
            "seed": 42,
        },
        "resource_config": {"gpu_count": gpu_count, "gpu_type": gpu_type, "memory_gb": 0.001},
        "output_config": {"model_name": "support-tone", "checkpoint_interval_steps": 200},
        "scheduling_config": {"queue_name": "default", "checkpoint_grace_seconds": 60},
        "labels": {"team": "support", "experiment": "tone-7", "type": "training"},
    }


def one_of_a_sweep(number: int) -> dict[str, Any]:
    """The same body as that of the other jobs of a sweep but for name and learning rate."""
    body = job_body()
    body["name"] = f"sweep-{number}"
    body["training_config"]["hyperparameters"]["learning_rate"] = f"{number + 1}e-6"
    return body


def submit_request(**options: Any) -> api.SubmitJobRequest:
    """The same as a message."""
    return to_message(job_body(**options), api.SubmitJobRequest())
