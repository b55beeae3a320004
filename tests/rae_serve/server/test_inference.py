"""The Open Inference Protocol: models, tensors in JSON and in binary, and requests that are wrong."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future

import numpy as np
import pytest
import tritonclient.http as triton
from fastapi.testclient import TestClient
from tritonclient.utils import InferenceServerException

from rae_serve.engine import Engine
from rae_serve.errors import Overloaded
from rae_serve.server import metrics
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import RequestMiddleware, front
from rae_serve.server.settings import Settings
from tests.serving import KEY, ROOT, serving

RNG = np.random.default_rng(0)
HEADER = "Inference-Header-Content-Length"
DATATYPES = {np.dtype("float32"): "FP32", np.dtype("int64"): "INT64", np.dtype("uint8"): "UINT8"}
MODELS = ("digits", "digits.prior", "digits.decoder", "digits.encoder")


@pytest.fixture(scope="module")
def catalog(bundle):
    catalog = Catalog(Settings(bundles=str(bundle.path), device="cpu", max_images=20, max_body_bytes=20_000))
    catalog.load()
    yield catalog
    catalog.close()


@pytest.fixture(scope="module")
def client(catalog):
    return TestClient(RequestMiddleware(create_app(catalog), catalog.settings), raise_server_exceptions=False)


def inputs_of(model: str) -> dict[str, np.ndarray]:
    match model.partition(".")[2]:
        case "prior":
            return {"noise": RNG.normal(size=(5, 8)).astype(np.float32)}
        case "decoder":
            return {"latents": RNG.normal(size=(5, 8)).astype(np.float32)}
        case "encoder":
            return {"images": RNG.integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)}
    return {"seed": np.array([7, 7, 1, 2**53 - 1, 0]), "row": np.array([3, 0, 9, 4, 2**53 - 1])}


def expected(engine: Engine, model: str, inputs: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    match model.partition(".")[2]:
        case "prior":
            return "latents", engine.latents(inputs["noise"])
        case "decoder":
            return "images", engine.decode(inputs["latents"])
        case "encoder":
            return "latents", engine.encode(inputs["images"])
    pairs = zip(inputs["seed"], inputs["row"], strict=True)
    return "images", np.concatenate([engine.sample(1, seed=seed, offset=row) for seed, row in pairs])


def document(inputs: dict[str, np.ndarray], **more: object) -> dict:
    """A request whose numbers are in JSON."""
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype], "data": array.ravel().tolist()}
        for name, array in inputs.items()
    ]
    return {"inputs": tensors, **more}


def binary(inputs: dict[str, np.ndarray], **more: object) -> tuple[bytes, bytes]:
    """The JSON and the binary data of a request."""
    request = document(inputs, **more)
    for tensor, array in zip(request["inputs"], inputs.values(), strict=True):
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": array.nbytes}
    return json.dumps(request).encode(), b"".join(array.tobytes() for array in inputs.values())


def array_of(response) -> np.ndarray:
    """The only output of a response, from JSON or from binary data."""
    assert response.status_code == 200, response.text
    is_binary = HEADER in response.headers
    assert response.headers["content-type"] == ("application/octet-stream" if is_binary else "application/json")
    length = int(response.headers.get(HEADER, len(response.content)))
    (output,) = json.loads(response.content[:length])["outputs"]
    dtype = {name: dtype for dtype, name in DATATYPES.items()}[output["datatype"]]
    if not is_binary:
        assert "parameters" not in output
        return np.array(output["data"], dtype).reshape(output["shape"])
    data = response.content[length:]
    assert output["parameters"]["binary_data_size"] == len(data)
    return np.frombuffer(data, dtype).reshape(output["shape"])


def refused(response, status: int) -> str:
    """What the client of the protocol shows of an error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["error"] == problem["detail"] != ""
    assert problem["status"] == status
    assert int(response.headers["content-length"]) == len(response.content)
    return problem["error"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("given", ["flat", "nested", "binary"])
@pytest.mark.parametrize("wanted", ["json", "binary"])
def test_every_model_computes_what_the_engine_does(client, engine, bundle, model, given, wanted):
    inputs = inputs_of(model)
    name, array = expected(engine, model, inputs)
    address = f"/v2/models/{model}"
    described = client.get(address).json()
    assert described["name"] == model
    assert described["versions"] == [bundle.manifest.digest]
    assert [(t["name"], t["datatype"], t["shape"]) for t in described["inputs"]] == [
        (name, DATATYPES[given.dtype], [-1, *given.shape[1:]]) for name, given in inputs.items()
    ]
    (output,) = described["outputs"]
    assert output == {"name": name, "datatype": DATATYPES[array.dtype], "shape": [-1, *array.shape[1:]]}

    more = {"id": "forty-two", "parameters": {"binary_data_output": wanted == "binary"}}
    if given == "binary":
        head, data = binary(inputs, **more)
        response = client.post(f"{address}/infer", content=head + data, headers={HEADER: str(len(head))})
    else:
        asked = document(inputs, **more)
        if given == "nested":
            for tensor, values in zip(asked["inputs"], inputs.values(), strict=True):
                tensor["data"] = values.tolist()
        response = client.post(f"{address}/infer", json=asked)
    computed = array_of(response)
    assert computed.dtype == array.dtype
    assert np.array_equal(computed, array)
    assert (HEADER in response.headers) == (wanted == "binary")
    head = json.loads(response.content[: int(response.headers.get(HEADER, len(response.content)))])
    assert (head["model_name"], head["id"]) == (model, "forty-two")
    assert head["model_version"] == response.headers["rae-digest"] == bundle.manifest.digest


def test_the_server_describes_itself(client):
    server = client.get("/v2").json()
    assert server == client.get("/v2/", follow_redirects=False).json()
    assert server["name"] == "rae-serve"
    assert server["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/digits.prior/ready").json() == {"name": "digits.prior", "ready": True}
    assert client.head("/v2/health/ready").status_code == 200


def test_a_server_without_its_models_is_live_but_not_ready(catalog):
    empty = Catalog(catalog.settings)
    client = TestClient(RequestMiddleware(create_app(empty), empty.settings))
    assert client.get("/v2/health/live").status_code == 200
    refused(client.get("/v2/health/ready"), 503)
    refused(client.get("/v2/models/digits/ready"), 404)


def test_a_version_is_the_digest_of_the_bundle(client, bundle):
    asked = document(inputs_of("digits"))
    right, wrong = (f"/v2/models/digits/versions/{version}" for version in (bundle.manifest.digest, "1"))
    assert client.get(right).json() == client.get("/v2/models/digits").json()
    assert client.get(f"{right}/ready").status_code == 200
    same = client.post(f"{right}/infer", json=asked)
    assert same.json() == client.post("/v2/models/digits/infer", json=asked).json()
    for response in (client.get(wrong), client.get(f"{wrong}/ready"), client.post(f"{wrong}/infer", json=asked)):
        assert bundle.manifest.digest in refused(response, 404)


def test_a_bundle_whose_name_ends_like_a_graph_is_itself(bundle, catalog, tmp_path):
    for name in ("digits", "digits.decoder"):
        shutil.copytree(bundle.path, tmp_path / name)
    both = Catalog(Settings(bundles=str(tmp_path), device="cpu"))
    both.load()
    client = TestClient(RequestMiddleware(create_app(both), both.settings))
    first = {"digits": "seed", "digits.prior": "noise", "digits.decoder": "seed", "digits.decoder.decoder": "latents"}
    for model, name in first.items():
        assert client.get(f"/v2/models/{model}").json()["inputs"][0]["name"] == name
    both.close()


@pytest.mark.parametrize("binary_data", [True, False])
def test_an_output_that_is_asked_for_says_how_it_comes(client, binary_data):
    asked = document(inputs_of("digits"), parameters={"binary_data_output": not binary_data})
    asked["outputs"] = [{"name": "images", "parameters": {"binary_data": binary_data}}]
    response = client.post("/v2/models/digits/infer", json=asked)
    assert (HEADER in response.headers) == binary_data
    assert array_of(response).shape == (5, 8, 8, 1)


def test_temperature_scales_the_noise(client, engine):
    asked = document({"seed": np.array([7]), "row": np.array([3])}, parameters={"temperature": 0.25})
    assert np.array_equal(
        array_of(client.post("/v2/models/digits/infer", json=asked)),
        engine.sample(1, seed=7, offset=3, temperature=0.25),
    )


def test_what_other_servers_know_has_no_effect(client):
    plain = document(inputs_of("digits.prior"))
    more = document(inputs_of("digits.prior"), model_name="other", parameters={"priority": 3, "timeout": 5})
    more["inputs"][0] |= {"data": plain["inputs"][0]["data"], "parameters": {"content_type": "np"}}
    answers = [client.post("/v2/models/digits.prior/infer", json=asked).json() for asked in (plain, more)]
    assert answers[0] == answers[1]


def test_null_is_as_good_as_nothing(client):
    plain = document(inputs_of("digits.prior"))
    nulls = plain | {"id": None, "parameters": None, "outputs": None}
    nulls["inputs"] = [plain["inputs"][0] | {"parameters": {"binary_data_size": None}}]
    answers = [client.post("/v2/models/digits.prior/infer", json=asked).json() for asked in (plain, nulls)]
    assert answers[0] == answers[1]


def noise(**changes: object) -> dict:
    """A request to the prior, with changes of its input; None takes a field away."""
    request = document({"noise": np.zeros((2, 8), np.float32)})
    tensor = request["inputs"][0] | changes
    request["inputs"] = [{name: value for name, value in tensor.items() if value is not None}]
    return request


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("body", []),
        ("body", "text"),
        ("inputs", {}),
        ("inputs", {"inputs": []}),
        ("inputs", {"inputs": {}}),
        ("inputs", {"inputs": [1] * 1000}),
        ("inputs.0", {"inputs": [None]}),
        ("id", noise() | {"id": 42}),
        ("parameters", noise() | {"parameters": []}),
        ("parameters.binary_data_output", noise() | {"parameters": {"binary_data_output": "yes"}}),
        ("parameters.sequence_id", noise() | {"parameters": {"sequence_id": 3}}),
        ("parameters.temperature", noise() | {"parameters": {"temperature": -1}}),
        ("inputs.0.name", noise(name=None)),
        ("inputs.0.name", noise(name="latents")),
        ("inputs.0.name", noise(name="x" * 10_000)),
        ("inputs.0.datatype", noise(datatype=None)),
        ("inputs.0.datatype", noise(datatype=7)),
        *[("inputs.0.datatype", noise(datatype=kind)) for kind in ("FP16", "BF16", "FP64", "INT32", "BYTES", "fp32")],
        ("inputs.0.shape", noise(shape=None)),
        ("inputs.0.shape", noise(shape=[])),
        ("inputs.0.shape", noise(shape=8)),
        ("inputs.0.shape", noise(shape=[16])),
        ("inputs.0.shape", noise(shape=[8, 2])),
        ("inputs.0.shape", noise(shape=[0, 8])),
        ("inputs.0.shape", noise(shape=[2, 8, 1])),
        ("inputs.0.shape", noise(shape=[1] * 100)),
        ("inputs.0.shape.0", noise(shape=[-1, 8])),
        ("inputs.0.shape.0", noise(shape=[2.5, 8])),
        ("inputs.0.shape.0", noise(shape=["2", 8])),
        ("inputs.0.shape.0", noise(shape=[True, 8])),
        ("inputs.0.shape.0", noise(shape=[21, 8])),
        ("inputs.0.shape.0", noise(shape=[2**53 - 1, 8])),
        ("inputs.0.shape.0", noise(shape=[2**64, 8])),
        ("inputs.0.data", noise(shape=[3, 8])),
        ("inputs.0.data", noise(data=None)),
        ("inputs.0.data", noise(data={})),
        ("inputs.0.data", noise(data=[])),
        ("inputs.0.data", noise(data=[[0.0] * 8])),
        ("inputs.0.data", noise(data=[[0.0] * 8, [0.0] * 7])),
        ("inputs.0.data", noise(data=[[0.0] * 8, 0.0])),
        ("inputs.0.data", noise(data=[0.0] * 8 + [[0.0] * 8])),
        ("inputs.0.data", noise(data=[[[0.0]] * 8] * 2)),
        ("inputs.0.data", noise(data=["0"] * 16)),
        ("inputs.0.data", noise(data=[True] * 16)),
        ("inputs.0.data", noise(data=[True] + [0.5] * 15)),
        ("inputs.0.data", noise(data=[10**400] + [0] * 15)),
        ("noise", noise(data=[1e39] + [0] * 15)),
        ("noise", noise(data=[1e7] + [0] * 15)),
        ("inputs.1.name", {"inputs": noise()["inputs"] * 2}),
        ("inputs.0.parameters", noise(parameters=3)),
        ("inputs.0.parameters.binary_data_size", noise(parameters={"binary_data_size": -64}, data=None)),
        ("inputs.0.parameters.binary_data_size", noise(parameters={"binary_data_size": "64"}, data=None)),
        ("inputs.0.parameters.shared_memory_region", noise(parameters={"shared_memory_region": "r"}, data=None)),
        ("inputs.0.data", noise(parameters={"binary_data_size": 64})),
        ("body", noise(parameters={"binary_data_size": 64}, data=None)),
        ("outputs", noise() | {"outputs": {}}),
        ("outputs.0.name", noise() | {"outputs": [{}]}),
        ("outputs.0.name", noise() | {"outputs": [{"name": "images"}]}),
        ("outputs.1.name", noise() | {"outputs": [{"name": "latents"}] * 2}),
        *[
            (f"outputs.0.parameters.{key}", noise() | {"outputs": [{"name": "latents", "parameters": {key: value}}]})
            for key, value in (("binary_data", 1), ("classification", 3), ("shared_memory_region", "r"))
        ],
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named(client, field, asked):
    response = client.post("/v2/models/digits.prior/infer", json=asked)
    assert refused(response, 422).startswith(f"{field}: ")
    assert field in [error["field"] for error in response.json()["errors"]]


@pytest.mark.parametrize(
    ("field", "seed", "row"),
    [
        ("inputs", [1], None),
        ("inputs.1.shape", [1, 2], [1]),
        ("inputs.0.data", [0.5], [1]),
        ("inputs.1.data", [1], [2**63]),
        ("seed", [-1], [1]),
        ("row", [1], [2**53]),
    ],
)
def test_seeds_and_rows_are_pairs_of_integers(client, field, seed, row):
    given = {"seed": seed, "row": row}
    tensors = [
        {"name": name, "shape": [len(data)], "datatype": "INT64", "data": data}
        for name, data in given.items()
        if data
    ]
    assert refused(client.post("/v2/models/digits/infer", json={"inputs": tensors}), 422).startswith(f"{field}: ")


@pytest.mark.parametrize("value", [-1, 256, 1.5])
def test_a_pixel_is_a_byte(client, value):
    asked = document(inputs_of("digits.encoder"))
    asked["inputs"][0]["data"][7] = value
    assert "from 0 to 255" in refused(client.post("/v2/models/digits.encoder/infer", json=asked), 422)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null"])
def test_a_number_that_is_none_is_refused(client, number):
    text = json.dumps(noise()).encode().replace(b"0.0", number, 1)
    refused(client.post("/v2/models/digits.prior/infer", content=text), 422)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"inputs": [}', b'"\\ud800"'])
def test_a_body_that_is_no_json_is_refused(client, text):
    refused(client.post("/v2/models/digits.prior/infer", content=text), 400)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e7])
def test_binary_numbers_are_checked_like_others(client, value):
    head, data = binary({"noise": np.full((1, 8), value, np.float32)})
    response = client.post("/v2/models/digits.prior/infer", content=head + data, headers={HEADER: str(len(head))})
    assert refused(response, 422).startswith("noise: ")


@pytest.mark.parametrize(
    ("field", "length", "data"),
    [
        (HEADER, 10_000, 160),
        (HEADER, "-1", 160),
        (HEADER, "0x10", 160),
        (HEADER, "many", 160),
        (HEADER, "", 160),
        (HEADER, "9" * 5000, 160),
        (HEADER, str(2**64), 160),
        ("the body is not JSON", 0, 160),
        ("the body is not JSON", 20, 160),
        ("the body is not JSON", None, 160),
        ("body", None, 0),
        ("body", "right", 159),
        ("body", "right", 161),
        ("body", "right", 0),
    ],
)
def test_lengths_that_do_not_fit_are_refused(client, field, length, data):
    head, _ = binary({"noise": np.zeros((5, 8), np.float32)})
    length = len(head) if length == "right" else length
    headers = {} if length is None else {HEADER: str(length)}
    response = client.post("/v2/models/digits.prior/infer", content=head + b"\1" * data, headers=headers)
    assert refused(response, 400 if field == "the body is not JSON" else 422).startswith(field)


@pytest.mark.parametrize("size", [0, 63, 65, 128, 2**53 - 1])
def test_the_size_of_binary_data_follows_from_the_shape(client, size):
    request = noise(parameters={"binary_data_size": size}, data=None)
    head = json.dumps(request).encode()
    response = client.post(
        "/v2/models/digits.prior/infer", content=head + b"\0" * 64, headers={HEADER: str(len(head))}
    )
    assert "must be 64" in refused(response, 422)


@pytest.mark.parametrize("model", MODELS)
def test_damaged_requests_are_never_an_error_of_the_server(client, model):
    head, data = binary(inputs_of(model))
    seen = set()
    for _ in range(150):
        body, length = bytearray(head + data), len(head)
        match RNG.integers(4):
            case 0:
                for place in RNG.integers(0, len(body), RNG.integers(1, 5)):
                    body[place] = RNG.integers(256)
            case 1:
                del body[RNG.integers(len(body)) :]
            case 2:
                start, end = sorted(RNG.integers(0, len(body), 2))
                body[start:end] = body[start:end] * 2
            case 3:
                length = int(RNG.integers(0, 2 * len(body)))
        response = client.post(f"/v2/models/{model}/infer", content=bytes(body), headers={HEADER: str(length)})
        seen.add(response.status_code)
        if response.status_code != 200:
            refused(response, response.status_code)
    assert seen <= {200, 400, 422}
    assert {400, 422} <= seen


@pytest.mark.parametrize(
    "odd", [None, True, -1, 0, 2.5, 2**63, 10**400, "", "7", "x" * 1000, [], [[]], [[[7]]], {}, {"name": "seed"}]
)
def test_a_value_of_another_kind_is_never_an_error_of_the_server(client, odd):
    asked = document(inputs_of("digits"), id="one", parameters={"binary_data_output": False, "temperature": 1.0})
    asked["outputs"] = [{"name": "images", "parameters": {"binary_data": False}}]
    bodies = [json.dumps(changed) for changed in _replaced(asked, odd)]
    statuses = [client.post("/v2/models/digits/infer", content=body).status_code for body in bodies]
    assert len(statuses) > 30
    assert set(statuses) <= {200, 422}
    assert 422 in statuses


def _replaced(document: object, value: object) -> list[object]:
    """Copies of a JSON document, each with another one of its parts replaced by the value."""
    copies: list[object] = [value]
    if isinstance(document, dict):
        for name, part in document.items():
            copies += [document | {name: copy} for copy in _replaced(part, value)]
    elif isinstance(document, list):
        for i, part in enumerate(document):
            copies += [[*document[:i], copy, *document[i + 1 :]] for copy in _replaced(part, value)]
    return copies


@pytest.mark.parametrize("media_type", ["application/json", "application/octet-stream", "application/ld+json", ""])
def test_the_content_type_may_be_missing(client, media_type):
    asked = json.dumps(document(inputs_of("digits"))).encode()
    headers = {"content-type": media_type} if media_type else {}
    assert client.post("/v2/models/digits/infer", content=asked, headers=headers).status_code == 200


def test_errors_of_every_layer_have_the_form_of_the_protocol(client, monkeypatch):
    address, asked = "/v2/models/digits/infer", document(inputs_of("digits"))
    for path in ("/v2/nothing", "/v2/models/digits/config", "/v2/models/other", "/v2/models/other.decoder"):
        refused(client.get(path), 404)
    refused(client.get(address), 405)
    refused(client.post(address, content=b"x" * 20_001), 413)
    refused(client.post(address, data={"inputs": "4"}), 415)
    refused(client.post(address, json=asked, headers={"content-encoding": "gzip"}), 415)

    def overloaded(*_, **__):
        raise Overloaded(2048, 1)

    monkeypatch.setattr(Engine, "submit_rows", overloaded)
    response = client.post(address, json=asked)
    refused(response, 429)
    assert response.headers["retry-after"] == "1"
    assert "error" not in client.get("/v1/models/other").json()


def test_a_request_that_waits_too_long_is_cancelled(catalog, monkeypatch):
    future: Future[np.ndarray] = Future()
    monkeypatch.setattr(Engine, "submit_rows", lambda *_, **__: future)
    settings = catalog.settings.model_copy(update={"max_seconds": 0.2})
    client = TestClient(RequestMiddleware(create_app(catalog), settings), raise_server_exceptions=False)
    refused(client.post("/v2/models/digits/infer", json=document(inputs_of("digits"))), 503)
    assert future.cancelled()


def test_only_the_probes_need_no_key(catalog):
    settings = Settings(**catalog.settings.model_dump() | {"api_keys": [KEY], "cors_origins": ["https://a.example"]})
    locked = Catalog(settings)
    client = TestClient(front(create_app(locked), locked))
    assert client.get("/v2/health/live").status_code == 200
    refused(client.get("/v2/health/ready"), 503)
    for path in ("/v2", "/v2/models/digits", "/v2/models/digits/ready"):
        refused(client.get(path), 401)
    refused(client.post("/v2/models/digits/infer", json={}), 401)
    shown = client.get("/v2/health/live", headers={"Origin": "https://a.example"})
    assert HEADER in shown.headers["access-control-expose-headers"]


def test_numbers_that_json_cannot_hold_come_as_binary_only(client, monkeypatch):
    future: Future[np.ndarray] = Future()
    future.set_result(np.full((2, 8), np.inf, np.float32))
    monkeypatch.setattr(Engine, "submit_latents", lambda *_: future)
    assert "binary_data" in refused(client.post("/v2/models/digits.prior/infer", json=noise()), 422)
    asked = noise() | {"parameters": {"binary_data_output": True}}
    assert np.isinf(array_of(client.post("/v2/models/digits.prior/infer", json=asked))).all()


def test_requests_are_counted_by_route(client):
    def counted() -> float:
        labels = {"method": "POST", "route": "/v2/models/{name}/infer", "status": "200"}
        return metrics._registry.get_sample_value("rae_serve_requests_total", labels) or 0.0

    before = counted()
    for model in MODELS:
        client.post(f"/v2/models/{model}/infer", json=document(inputs_of(model)))
    assert counted() == before + len(MODELS)


def test_the_openapi_document_is_whole(client):
    openapi = client.get("/openapi.json").json()
    known = {f"#/components/schemas/{name}" for name in openapi["components"]["schemas"]}
    assert set(_references(openapi)) <= known
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        described = openapi["paths"][path]["post"]
        for content in (described["requestBody"]["content"], described["responses"]["200"]["content"]):
            assert set(content) == {"application/json", "application/octet-stream"}
        assert HEADER in [parameter["name"] for parameter in described["parameters"]]
        assert "application/problem+json" in described["responses"]["422"]["content"]


def _references(document: object) -> list[str]:
    if isinstance(document, dict):
        own = [document["$ref"]] if "$ref" in document else []
        return own + [found for value in document.values() for found in _references(value)]
    return [found for value in document for found in _references(value)] if isinstance(document, list) else []


@pytest.fixture(scope="module")
def triton_client(tmp_path_factory):
    """A client of a service that asks for KEY and has both bundles of tests/data."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in ("digits", "version-1"):
        shutil.copytree(ROOT / "tests" / "data" / name, folder / name)
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with (
        serving(folder, log, api_keys=KEY) as (address, _),
        triton.InferenceServerClient(address.removeprefix("http://"), concurrency=4) as client,
    ):
        yield client


def key() -> dict[str, str]:
    """The header of the key. It is made for each call, because Triton's client adds headers to it."""
    return {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize("bundle_name", ["digits", "version-1"])
@pytest.mark.parametrize("part", ["", ".prior", ".decoder", ".encoder"])
def test_tritons_client_uses_every_model(triton_client, engine, bundle_name, part):
    model = bundle_name + part
    given = inputs_of(model)
    output, array = expected(engine, model, given)
    described = triton_client.get_model_metadata(model, headers=key())
    assert triton_client.is_model_ready(model, described["versions"][0], headers=key())
    for as_binary in (True, False):
        tensors = []
        for tensor in described["inputs"]:
            values = given[tensor["name"]]
            tensors.append(triton.InferInput(tensor["name"], values.shape, tensor["datatype"]))
            tensors[-1].set_data_from_numpy(values, binary_data=as_binary)
        outputs = [triton.InferRequestedOutput(output, binary_data=as_binary)]
        for wanted in (outputs, None):
            result = triton_client.infer(model, tensors, outputs=wanted, request_id="one", headers=key())
            assert result.get_response()["id"] == "one"
            assert np.array_equal(result.as_numpy(output), array)


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda client: client.load_model("digits", key()), "/v2/repository/models/digits/load"),
        (lambda client: client.get_model_repository_index(key()), "/v2/repository/index"),
        (lambda client: client.get_model_config("digits", headers=key()), "/v2/models/digits/config"),
        (lambda client: client.get_inference_statistics("digits", headers=key()), "/v2/models/digits/stats"),
        (lambda client: client.get_log_settings(key()), "/v2/logging"),
        (lambda client: client.get_system_shared_memory_status(headers=key()), "/v2/systemsharedmemory/status"),
        (
            lambda client: client.register_system_shared_memory("one", "/one", 64, headers=key()),
            "/v2/systemsharedmemory/region/one/register",
        ),
    ],
)
def test_tritons_client_is_told_where_the_extensions_are_listed(triton_client, call, path):
    with pytest.raises(InferenceServerException, match="GET /v2 lists the extensions that this server has") as raised:
        call(triton_client)
    assert raised.value.status() == "404"
    assert f"there is nothing at {path}; " in raised.value.message()


def test_tritons_client_runs_several_models_at_once(triton_client, engine):
    given = {model: inputs_of(model) for model in ("digits", "version-1", "digits.encoder")}
    waiting = []
    for model in [*given, *given]:
        tensors = []
        for name, array in given[model].items():
            tensors.append(triton.InferInput(name, array.shape, DATATYPES[array.dtype]))
            tensors[-1].set_data_from_numpy(array)
        waiting.append((model, triton_client.async_infer(model, tensors, headers=key())))
    for model, answer in waiting:
        output, array = expected(engine, model, given[model])
        assert np.array_equal(answer.get_result(timeout=30).as_numpy(output), array)


def test_tritons_client_shows_what_is_wrong(triton_client):
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.get_server_metadata(headers=key())["extensions"] == ["binary_tensor_data"]
    half = triton.InferInput("noise", [1, 8], "FP16")
    half.set_data_from_numpy(np.zeros((1, 8), np.float16))
    with pytest.raises(InferenceServerException, match=r"inputs\.0\.datatype: must be FP32, not 'FP16'") as raised:
        triton_client.infer("digits.prior", [half], headers=key())
    assert raised.value.status() == "422"
    with pytest.raises(
        InferenceServerException, match="there is no model 'other'; the models are: digits, version-1"
    ):
        triton_client.get_model_metadata("other", headers=key())
    with pytest.raises(InferenceServerException, match="a key is needed") as raised:
        triton_client.get_model_metadata("digits")
    assert raised.value.status() == "401"
