"""Run by MLflow's own Python: writes scores into its store and prints the run's id."""

import json
import sys
import time

import numpy as np
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import insert


def main(uri: str, scores: str, metrics: str, steps_apart: str) -> None:
    """Keys are `<task>/<metric>`; steps as in the generated run. Rows as `log_batch` writes them, all at once."""
    names = json.loads(metrics)
    store = SqlAlchemyStore(uri, "artifacts")
    experiment = store.create_experiment("grown")
    now = int(time.time() * 1000)
    run = store.create_run(experiment, user_id="bench", start_time=now, tags=[], run_name="grown")
    rows = [
        {"run_uuid": run.info.run_id, "key": f"task_{task + 1:02d}/{name}", "value": float(value), "is_nan": False}
        | {"timestamp": now + at, "step": (at + 1) * int(steps_apart)}
        for at, table in enumerate(np.load(scores))
        for task, row in enumerate(table)
        for name, value in zip(names, row, strict=True)
    ]
    with store.engine.begin() as connection:
        connection.execute(insert(SqlMetric.__table__), rows)
        connection.execute(insert(SqlLatestMetric.__table__), list({row["key"]: row for row in rows}.values()))
    print(run.info.run_id)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
