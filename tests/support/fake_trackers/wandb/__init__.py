"""Stands for Weights & Biases: the functions that this project calls, with the real parameters; records the calls."""

CALLS = []


class Image:
    def __init__(self, data_or_path, mode=None, caption=None):
        self.shape = data_or_path.shape


class Run:
    def __init__(self, run_id):
        self.id = run_id

    def define_metric(self, name, step_metric=None):
        CALLS.append(("define_metric", name, step_metric))

    def log(self, data, step=None, commit=None):
        CALLS.append(("log", data))

    def mark_preempting(self):
        CALLS.append(("mark_preempting",))

    def finish(self, exit_code=None):
        CALLS.append(("finish", exit_code))


def init(project=None, dir=None, id=None, name=None, config=None, allow_val_change=None, resume=None):
    CALLS.append(("init", project, dir, id, name, config, allow_val_change, resume))
    return Run(id)
