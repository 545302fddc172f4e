"""What the files of deploy/ say, beside the program that they start. Nothing is built or run: that needs a daemon."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from triptych.cli.app import Main
from triptych.serve.settings import READ_KEYS, WRITE_KEYS, ServeSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = [
    path for path in sorted(DEPLOY.glob("kubernetes/**/*.yaml")) if path.name != "kustomization.yaml"
]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
TEMPLATED = ("Deployment", "StatefulSet", "Job")


def resources() -> list[dict[str, Any]]:
    return [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text("utf-8"))]


def pods() -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in resources()
        if each["kind"] in TEMPLATED
    }


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))


def program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or pytest.skip(f"{name} is not installed")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        [program("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_kubernetes_schemas_accept_every_manifest_and_know_every_key() -> None:
    command = [program("kubernetes-validate"), "--strict", "--no-warn", *MANIFESTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed ") == len(resources())


def commands() -> list[list[str]]:
    lists = [service["command"] for service in compose()["services"].values() if "command" in service]
    lists += [
        container["args"] for pod in pods().values() for container in pod["containers"] if "args" in container
    ]
    lists += [
        re.findall(r'"([^"]+)"', line) for line in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    ]
    return lists


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_exist_with_their_options(words: list[str]) -> None:
    command: Any = Main.table[words[0]].build(words[0])
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_each_image_listens_where_its_probes_ask() -> None:
    assert set(re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)) == {str(ServeSettings().port)}
    container = pods()["triptych"]["containers"][0]
    assert container["ports"] == [{"name": "http", "containerPort": ServeSettings().port}]
    for probe, path in (
        ("startupProbe", "/ready"),
        ("readinessProbe", "/ready"),
        ("livenessProbe", "/health"),
    ):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    assert compose()["services"]["triptych"]["ports"] == ["127.0.0.1:8080:8080"], (
        "not open to the network by itself"
    )


def test_there_is_time_to_finish_what_was_accepted() -> None:
    grace = ServeSettings().grace
    pod = pods()["triptych"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= grace + pause + 5
    assert int(compose()["services"]["triptych"]["stop_grace_period"].rstrip("s")) >= grace + 5


def test_every_container_has_limits_probes_and_no_rights() -> None:
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            if "job" not in name and "index" not in name:
                assert container.keys() >= {"startupProbe", "readinessProbe", "livenessProbe"}, name


def test_keys_come_from_a_secret_that_the_example_has() -> None:
    secret = next(each for each in resources() if each["kind"] == "Secret")
    names: dict[str, str] = {}
    for pod in pods().values():
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    source = variable["valueFrom"]["secretKeyRef"]
                    assert source["name"] == secret["metadata"]["name"]
                    assert source["key"] in secret["stringData"]
                    names[variable["name"]] = source["key"]
    assert {READ_KEYS, WRITE_KEYS, "TRIPTYCH_API_KEY"} <= set(names)
    environment = compose()["services"]["triptych"]["environment"]
    assert all("?" in environment[name] for name in (READ_KEYS, WRITE_KEYS)), "none is started without keys"


def test_services_select_the_pods_of_their_names() -> None:
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in resources()
        if each["kind"] in ("Deployment", "StatefulSet")
    }
    for each in resources():
        if each["kind"] == "Service":
            assert each["spec"]["selector"] == labels[each["metadata"]["name"]]


def test_the_images_run_as_the_user_that_the_pods_name() -> None:
    assert set(re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE)) == {"10001:10001"}
    assert pods()["triptych"]["securityContext"]["runAsUser"] == 10001
    assert set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)) >= {"cpu", "gpu"}


def test_the_kustomizations_name_files_that_exist() -> None:
    for path in DEPLOY.glob("kubernetes/**/kustomization.yaml"):
        found = yaml.safe_load(path.read_text("utf-8"))
        for name in found["resources"]:
            assert (path.parent / name).exists(), name
        for patch in found.get("patches", []):
            assert any(
                (each["kind"], each["metadata"]["name"]) == (patch["target"]["kind"], patch["target"]["name"])
                for each in resources()
            )
            yaml.safe_load(patch["patch"])


def test_the_build_gets_only_what_it_copies() -> None:
    kept = {
        line[1:]
        for line in (DEPLOY.parent / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert copied == kept
    assert all((DEPLOY.parent / name).exists() for name in copied)
