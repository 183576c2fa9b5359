"""Stands for MLflow: the methods that this project calls, with the real parameters; records the calls."""

from types import SimpleNamespace

CALLS = []
EXPERIMENTS = {}


class MlflowClient:
    def __init__(self, tracking_uri=None, registry_uri=None):
        pass

    def get_experiment_by_name(self, name):
        return EXPERIMENTS.get(name)

    def create_experiment(self, name, artifact_location=None, tags=None):
        EXPERIMENTS[name] = SimpleNamespace(experiment_id=str(len(EXPERIMENTS)))
        return EXPERIMENTS[name].experiment_id

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        CALLS.append(("create_run", experiment_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run{len(CALLS)}"))

    def update_run(self, run_id, status=None, name=None):
        CALLS.append(("update_run", run_id, status))

    def log_param(self, run_id, key, value, synchronous=None):
        CALLS.append(("log_param", run_id, key, value))

    def log_metric(self, run_id, key, value, timestamp=None, step=None, synchronous=None):
        CALLS.append(("log_metric", run_id, key, value, step))

    def log_image(self, run_id, image, artifact_file=None, key=None, step=None, timestamp=None, synchronous=None):
        CALLS.append(("log_image", run_id, image.shape, key, step))

    def log_dict(self, run_id, dictionary, artifact_file):
        CALLS.append(("log_dict", run_id, dictionary, artifact_file))

    def set_terminated(self, run_id, status=None, end_time=None):
        CALLS.append(("set_terminated", run_id, status))
