"""The in-job library: what a training process says to, and hears from, MindCoordinator.

    import scaimind

    with scaimind.init() as run:
        for step in run.track(total_steps):
            ...
            run.log({"loss": loss}, step=step)
            if run.should_checkpoint or run.should_stop or step % 100 == 0:
                with run.checkpoint(step) as folder:
                    save_to(folder)
            if run.should_stop:
                break

It speaks through environment variables, signals and one file of JSON lines, nothing else: no
socket, no thread, nothing beyond the standard library. Outside MindCoordinator the same script
runs unchanged: events go nowhere, folders default to `output` and `checkpoints`.
"""

from scaimind.job.attempt import Attempt, init

__all__ = ["Attempt", "init"]
