"""The verbs about data and evaluations: data validate, cache, evaluate, evaluations."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scaimind.cli import exits, moments, tables
from scaimind.cli.exits import fail
from scaimind.cli.jobs import Since, Statuses, filled
from scaimind.cli.session import Session, verb


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, "scaimind cache")(cache)
    verb(app, "scaimind evaluate job_01J9 --benchmark perplexity --dataset test.jsonl")(evaluate)
    verb(app, "scaimind evaluations job_02K1")(evaluations)
    data = typer.Typer(help="Checks data.", no_args_is_help=True, rich_markup_mode=None)
    verb(data, "scaimind data validate train.jsonl s3://bucket/more.parquet")(validate)
    app.add_typer(data, name="data")


def validate(
    session: Session,
    paths: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Paths or URIs")],
    form: Annotated[str, typer.Option("--format", help="Such as jsonl; else the name tells")] = "",
) -> None:
    """Tells whether data can be reached and parsed; exit code 1 where it cannot."""
    sources = [{"path": _absolute(path), "format": form} for path in paths]
    answer = session.client.validate_data(sources)
    session.show(answer, tables.validity)
    if not answer.valid:
        raise typer.Exit(exits.JOB_FAILED)


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if "://" not in path and Path(path).exists() else path


def cache(
    session: Session,
    node_id: Annotated[str, typer.Argument(metavar="[NODE]", help="Default: all")] = "",
) -> None:
    """Lists what the nodes' data caches hold."""
    session.show(session.client.data_cache(node_id), tables.cache)


def evaluate(
    session: Session,
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The trained job")],
    benchmark: Annotated[list[str], typer.Option(help="A benchmark; may be repeated")],
    checkpoint_id: Annotated[str, typer.Option("--checkpoint", help="Not the final model")] = "",
    model_uri: Annotated[str, typer.Option("--model", help="Where the model is")] = "",
    dataset: Annotated[str, typer.Option(help="Path or URI of jsonl, for all of them")] = "",
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For all of them")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, max=2**53, help="Samples of each; 0 all")] = 0,
) -> None:
    """Queues an evaluation of a job's model."""
    each = {
        "dataset": _absolute(dataset),
        "num_samples": samples,
        "parameters": dict(_pair(text) for text in parameter or ()),
    }
    body = {
        "job_id": job_id,
        "model_uri": model_uri,
        "checkpoint_id": checkpoint_id,
        "benchmarks": [{"name": name, **each} for name in benchmark],
    }
    session.show(session.client.submit_evaluation(body), tables.evaluation_submitted)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        fail(f"--parameter {text}: must be NAME=VALUE")
    return name, value


def evaluations(
    session: Session,
    evaluation_id: Annotated[
        str, typer.Argument(metavar="[EVALUATION]", help="Show this one")
    ] = "",
    status: Statuses = None,
    job: Annotated[str, typer.Option(metavar="JOB", help="Only of this job")] = "",
    since: Since = "",
    page_size: Annotated[int, typer.Option(min=1, max=100, help="Evaluations a page")] = 20,
    page_token: Annotated[str, typer.Option(help="Of the page before")] = "",
) -> None:
    """Lists evaluations, or shows one with its scores."""
    if evaluation_id:
        session.show(session.client.get_evaluation(evaluation_id), tables.evaluation)
        return
    ask = partial(
        session.client.evaluations_page,
        status=[each.upper() for each in status or ()],
        parent_job_id=job,
        created_after=moments.moment(since, option="--since") if since else None,
    )
    session.show(filled(ask, page_size=page_size, page_token=page_token), tables.jobs)
