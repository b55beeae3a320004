"""The manifests in deploy/ are valid, and agree with the settings, addresses and metrics of the server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from rae_serve.manifest import SCHEMA_VERSION
from rae_serve.server import metrics
from rae_serve.server.settings import Settings
from tests.serving import ROOT
from tests.toolchains import require

KUBERNETES = ROOT / "deploy" / "kubernetes"
SCHEMAS = Path(__file__).parent / "data" / "kubernetes"
VERSIONS = ("1.30", "1.37")  # the oldest and the newest Kubernetes that the manifests are checked for
FOLDERS = ("overlays/cpu", "overlays/gpu", "generate", "kserve")
WORKLOADS = ("Deployment", "Job")
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}  # of a pod that its node loses
GUIDE = "docs/kubernetes.md"  # has a kustomization with every component

Document = dict[str, Any]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> dict[str, list[Document]]:
    """The documents that kustomize makes of each folder, and of the guide's kustomization."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "deploy").symlink_to(ROOT / "deploy")
    (example,) = re.findall(r"```yaml\n(apiVersion: kustomize.*?)```", (ROOT / GUIDE).read_text(), re.DOTALL)
    (folder / "kustomization.yaml").write_text(example)
    folders = {name: KUBERNETES / name for name in FOLDERS} | {GUIDE: folder}
    return {name: list(yaml.safe_load_all(kustomize(folder))) for name, folder in folders.items()}


def kustomize(folder: Path) -> str:
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    require(shutil.which(command[0]), "kustomize or kubectl")
    ended = subprocess.run([*command, folder], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def all_documents(rendered: dict[str, list[Document]]) -> list[Document]:
    return [document for documents in rendered.values() for document in documents]


def one(documents: list[Document], kind: str) -> Document:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def pods(documents: list[Document]) -> Iterator[Document]:
    """The pod specifications in some documents."""
    for document in documents:
        if document["kind"] in WORKLOADS:
            yield document["spec"]["template"]["spec"]
        elif document["kind"] == "ServingRuntime":
            yield document["spec"]


def environment(pod: Document, documents: list[Document]) -> dict[str, str]:
    """The environment variables of the only container of a pod."""
    (container,) = pod["containers"]
    maps = {document["metadata"]["name"]: document for document in documents if document["kind"] == "ConfigMap"}
    given = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            given |= maps[source["configMapRef"]["name"]]["data"]
    return given | {variable["name"]: variable["value"] for variable in container.get("env", ())}


def check(document: Document, version: str) -> None:
    """Validate a document by the schema of its kind, which allows no unknown field."""
    schema = SCHEMAS / f"{document['kind']}.json"
    if schema.exists():  # a kind that Kubernetes itself does not have
        jsonschema.validate(document, json.loads(schema.read_text()))
        assert document["apiVersion"] in schema.read_text()
    else:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [*FOLDERS, GUIDE])
def test_every_document_is_valid(rendered, folder, version):
    for document in rendered[folder]:
        check(document, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_valid_by_itself(version):
    files = [file for file in KUBERNETES.rglob("*.yaml") if file.name != "kustomization.yaml"]
    assert files
    for file in files:
        check(yaml.safe_load(file.read_text()), version)


def test_every_file_is_used():
    for kustomization in KUBERNETES.rglob("kustomization.yaml"):
        named = yaml.safe_load(kustomization.read_text())
        used = {"kustomization.yaml", *named["resources"]}
        used |= {file for maps in named.get("configMapGenerator", ()) for file in maps.get("files", ())}
        assert {file.name for file in kustomization.parent.iterdir() if file.is_file()} <= used


def test_every_setting_exists_and_is_valid(rendered, monkeypatch):
    known = {f"RAE_SERVE_{name.upper()}" for name in Settings.model_fields}
    seen = set()
    for documents in rendered.values():
        for pod in pods(documents):
            given = {key: value for key, value in environment(pod, documents).items() if key.startswith("RAE_SERVE_")}
            assert given.keys() <= known
            for key, value in given.items():
                monkeypatch.setenv(key, value)
            Settings.from_environment()
            seen |= given.keys()
    assert {"RAE_SERVE_DRAIN_SECONDS", "RAE_SERVE_DEVICE", "RAE_SERVE_PORT"} <= seen


def servers(rendered: dict[str, list[Document]]) -> Iterator[tuple[Document, dict[str, str], list[Document]]]:
    for documents in rendered.values():
        for pod in pods(documents):
            if "ports" in pod["containers"][0]:
                yield pod, environment(pod, documents), documents


def seconds(probe: Document) -> int:
    """How long a probe may fail before Kubernetes restarts the container."""
    return probe["periodSeconds"] * probe["failureThreshold"]


def test_ports_and_probes_agree_with_the_server(rendered, server):
    count = 0
    for pod, given, documents in servers(rendered):
        (container,) = pod["containers"]
        (port,) = container["ports"]
        assert str(port["containerPort"]) == given["RAE_SERVE_PORT"]
        probes = [value["httpGet"] for key, value in container.items() if key.endswith("Probe")]
        assert len(probes) >= 2
        for probe in probes:
            assert probe["port"] in (port["name"], port["containerPort"])
            assert httpx.get(server + probe["path"]).status_code == 200
        assert container["startupProbe"]["httpGet"] == container["livenessProbe"]["httpGet"]
        assert seconds(container["startupProbe"]) >= 5 * seconds(container["livenessProbe"])  # loading takes its time
        assert given["BENTOML_HOST"] == "0.0.0.0"
        if any(document["kind"] == "Service" for document in documents):
            (service_port,) = one(documents, "Service")["spec"]["ports"]
            assert service_port["targetPort"] == port["name"]
        count += 1
    assert count == 4  # every folder but `generate`, and the guide


def test_a_pod_has_time_to_finish_its_requests(rendered):
    for pod, given, documents in servers(rendered):
        settings = {key: float(given[f"RAE_SERVE_{key}"]) for key in ("DRAIN_SECONDS", "MAX_SECONDS")}
        spec = (
            pod if "terminationGracePeriodSeconds" in pod else one(documents, "InferenceService")["spec"]["predictor"]
        )
        assert spec["terminationGracePeriodSeconds"] > settings["DRAIN_SECONDS"] + 2 * settings["MAX_SECONDS"]


def test_no_pod_may_do_more_than_it_must(rendered):
    for documents in rendered.values():
        for pod in pods(documents):
            (container,) = pod["containers"]
            security = pod.get("securityContext", {}) | container["securityContext"]
            assert security["runAsNonRoot"]
            assert security["runAsUser"] == 1034
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            writable = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert environment(pod, documents)["TMPDIR"] in writable
            assert container["resources"].keys() == {"requests", "limits"}
            if any("persistentVolumeClaim" in volume for volume in pod["volumes"]):  # which may hold a million files
                assert security["fsGroupChangePolicy"] == "OnRootMismatch"


def test_no_pod_gets_the_token_of_a_service_account(rendered):
    workloads = [document for document in all_documents(rendered) if document["kind"] in WORKLOADS]
    specs = [workload["spec"]["template"]["spec"] for workload in workloads]
    specs.append(one(rendered["kserve"], "InferenceService")["spec"]["predictor"])
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False


def test_no_service_overwrites_a_setting(rendered):
    """Kubernetes sets NAME_PORT for a Service NAME, unless the variable or `enableServiceLinks: false` is given."""
    for documents in rendered.values():
        for pod in pods(documents):
            (container,) = pod["containers"]
            explicit = {variable["name"] for variable in container["env"]}
            assert pod.get("enableServiceLinks") is False or "RAE_SERVE_PORT" in explicit


def test_names_agree(rendered):
    documents = rendered[GUIDE]
    deployment = one(documents, "Deployment")
    labels, pod = deployment["spec"]["template"]["metadata"]["labels"], deployment["spec"]["template"]["spec"]
    assert one(documents, "ScaledObject")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    spreads = pod["topologySpreadConstraints"]
    assert [spread["topologyKey"] for spread in spreads] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for selector in (
        one(documents, "Service")["spec"]["selector"],
        one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(documents, "PodMonitor")["spec"]["selector"]["matchLabels"],
        one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in spreads),
    ):
        assert selector.items() <= labels.items()
    (endpoint,) = one(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]
    (allowed,) = one(documents, "NetworkPolicy")["spec"]["ingress"][0]["ports"]
    (port,) = pod["containers"][0]["ports"]
    assert endpoint["port"] == allowed["port"] == port["name"]
    runtime, service = (one(rendered["kserve"], kind) for kind in ("ServingRuntime", "InferenceService"))
    (form,) = runtime["spec"]["supportedModelFormats"]
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] == form["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert form["version"] == str(SCHEMA_VERSION)
    namespaces = {document["metadata"].get("namespace") for document in all_documents(rendered)}
    assert namespaces == {"rae-serve", None}  # None: the Namespace itself
    images = {pod["containers"][0]["image"].split(":")[0] for some in rendered.values() for pod in pods(some)}
    assert len(images) == 1


def test_the_job_makes_every_shard(rendered):
    job = one(rendered["generate"], "Job")["spec"]
    arguments = job["template"]["spec"]["containers"][0]["args"]
    assert f"--shard=$(JOB_COMPLETION_INDEX)/{job['completions']}" in arguments
    assert job["completionMode"] == "Indexed"
    assert job["podFailurePolicy"]["rules"] == [{"action": "Ignore", "onPodConditions": [DISRUPTED]}]
    (bundle,) = (word for word in arguments if word.startswith("src/"))
    assert (ROOT / bundle.removeprefix("src/")).is_dir()
    assert job["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] == "/images"


def expressions(rendered: dict[str, list[Document]]) -> Iterator[tuple[str, str]]:
    """The PromQL expressions of alerts, autoscaling and dashboard, with their names."""
    documents = rendered[GUIDE]
    for group in one(documents, "PrometheusRule")["spec"]["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    (trigger,) = one(documents, "ScaledObject")["spec"]["triggers"]
    yield "ScaledObject", trigger["metadata"]["query"]
    (dashboard,) = (d for d in documents if d["kind"] == "ConfigMap" and "rae-serve.json" in d["data"])
    for panel in json.loads(dashboard["data"]["rae-serve.json"])["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def series() -> dict[str, set[str]]:
    """Every series that /metrics may have, and its labels."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            for suffix in suffixes:
                found[family.name + suffix] = set(metric._labelnames) | ({"le"} if suffix == "_bucket" else set())
    return found


def test_every_expression_is_of_metrics_that_the_server_has(rendered):
    known, used = series(), set()
    for name, expression in expressions(rendered):
        promql_parser.parse(expression)
        names = set(re.findall(r"\brae_serve_\w+", expression))
        assert names, name
        assert names <= known.keys(), name
        labels = set().union(*(known[one] for one in names)) | {"namespace", "pod"}  # these two are of the scrape
        grouped = re.findall(r"(?:by|on) \(([^)]*)\)", expression)
        matched = re.findall(r"(\w+)=~?\"", expression)
        assert {label.strip() for group in grouped for label in group.split(",")} | set(matched) <= labels, name
        used |= {re.sub("_(total|bucket|sum|count)$", "", one) for one in names}
    assert used == {re.sub("_(total|bucket|sum|count)$", "", one) for one in known}  # every metric is shown


def test_the_expressions_name_reasons_that_the_server_counts(rendered):
    source = "".join(file.read_text() for file in (ROOT / "rae_serve" / "server").rglob("*.py"))
    for name, expression in expressions(rendered):
        for values in re.findall(r"(?:reason|outcome)=~?\"([^\"]*)\"", expression):
            for value in values.split("|"):
                assert f'"{value}"' in source, name


def test_the_series_of_an_expression_begin_before_their_first_event(rendered, server):
    """The functions `rate` and `increase` do not see the first event of a series that begins with it."""
    exposed = httpx.get(f"{server}/metrics").text
    found = set()
    for name, expression in expressions(rendered):
        for series, label, values in re.findall(r"(rae_serve_\w+)\{(reason|outcome)=~?\"([^\"]*)\"", expression):
            for value in values.split("|"):
                assert f'{series}{{{label}="{value}"}} ' in exposed, name
                found.add(value)
    assert found == {"overloaded", "expired", "refused"}


def test_the_namespace_of_the_query_is_that_of_the_server(rendered):
    documents = rendered[GUIDE]
    (trigger,) = one(documents, "ScaledObject")["spec"]["triggers"]
    namespace = one(documents, "Deployment")["metadata"]["namespace"]
    assert f'namespace="{namespace}"' in trigger["metadata"]["query"]
    assert trigger["metadata"]["threshold"] == str(Settings().max_batch)
