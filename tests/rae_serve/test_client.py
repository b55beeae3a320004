from __future__ import annotations

import asyncio
import json
import shutil

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from rae_serve import bundle as bundles
from rae_serve import images
from rae_serve.bundle import Bundle
from rae_serve.client import AsyncClient, Client, ServiceError
from rae_serve.manifest import Attribute
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import RequestMiddleware
from rae_serve.server.settings import Settings
from tests.serving import KEY


def test_every_verb_is_the_engines(server, engine, bundle):
    pictures = engine.sample(2, seed=5)
    codes = engine.encode(pictures)
    noises = engine.noise(2, seed=7)
    with Client(server) as client:
        assert client.models()[0]["digest"] == bundle.manifest.digest
        assert np.array_equal(
            client.sample(3, seed=7, offset=2, temperature=0.5), engine.sample(3, seed=7, offset=2, temperature=0.5)
        )
        assert client.sample(2).shape == (2, 8, 8, 1)
        assert np.array_equal(client.encode([pictures[0], images.encode(pictures[1])]), codes)
        assert np.array_equal(client.decode(codes), engine.decode(codes))
        assert np.array_equal(client.prepare(list(pictures)), pictures)
        assert np.array_equal(client.reconstruct(list(pictures)), engine.reconstruct(pictures))
        images_between = client.interpolate((7, 0), (7, 1), 5, space="noise", path="spherical")
        assert np.array_equal(images_between, engine.interpolate(*noises, 5, space="noise", path="spherical"))
        images_between = client.interpolate(images.encode(pictures[0]), codes[1], 4)
        assert np.array_equal(images_between, engine.interpolate(*codes, 4))


def test_an_edit_sends_its_point_attribute_and_strengths(engine):
    sent = {}

    def respond(request: httpx.Request) -> httpx.Response:
        sent.update(json.loads(request.content), path=request.url.path)
        return httpx.Response(200, content=images.encode_npy(engine.sample(2, seed=1)))

    with Client("http://127.0.0.1", model="digits") as client:
        client._http = httpx.Client(base_url="http://127.0.0.1", transport=httpx.MockTransport(respond))
        edited = client.edit((7, 1), "smile", np.array([-1, 2]))
    assert np.array_equal(edited, engine.sample(2, seed=1))
    point = {"seed": 7, "index": 1}
    asked = {"model": "digits", "point": point, "attribute": "smile", "strengths": [-1.0, 2.0], "format": "npy"}
    assert sent == {"path": "/v1/edit", **asked}


def test_errors_are_exceptions_that_say_the_same(server):
    with Client(server) as client:
        with pytest.raises(ServiceError, match="422: n: ") as raised:
            client.sample(0)
        assert raised.value.status == 422
        with pytest.raises(ServiceError, match=r"404: .*no attribute 'smile'"):
            client.edit((7, 0), "smile", [1])
    with Client(server, model="unknown") as client, pytest.raises(ServiceError, match=r"404: .*'unknown'"):
        client.sample()


def test_the_asynchronous_client_does_the_same(server, engine):
    async def ask():
        async with AsyncClient(server) as client:
            many = await asyncio.gather(*(client.sample(1, seed=3, offset=i) for i in range(8)))
            codes = await client.encode(list(engine.sample(2, seed=5)))
            between = await client.interpolate((np.int64(1), 0), codes[0], 3)
            with pytest.raises(ServiceError, match="404"):
                await client.edit(codes[0], "smile", [1])
            return (
                np.concatenate(many),
                await client.decode(codes),
                await client.reconstruct(list(many[0])),
                between,
                await client.models(),
            )

    many, decoded, again, between, models = asyncio.run(ask())
    assert np.array_equal(many, engine.sample(8, seed=3))
    assert np.array_equal(decoded, engine.reconstruct(engine.sample(2, seed=5)))
    assert np.array_equal(again, engine.reconstruct(many[:1]))
    assert np.array_equal(between[0], engine.sample(1, seed=1)[0])
    assert models[0]["name"] == "digits"


def test_a_key_is_sent_where_one_is_asked_for(locked_server, engine):
    with Client(locked_server, api_key=KEY) as client:
        assert np.array_equal(client.sample(2, seed=5), engine.sample(2, seed=5))
    with (
        Client(locked_server, api_key="another") as client,
        pytest.raises(ServiceError, match="401: a key is needed"),
    ):
        client.models()

    async def models():
        async with AsyncClient(locked_server, api_key=KEY) as client:
            return await client.models()

    assert len(asyncio.run(models())) == 1


def test_a_drawn_seed_makes_the_same_images_again(server, engine):
    with Client(server) as client:
        images_drawn, seed = client.draw(3, temperature=0.5)
        assert np.array_equal(images_drawn, engine.sample(3, seed=seed, temperature=0.5))
        assert client.draw()[1] != seed

    async def draw():
        async with AsyncClient(server, model="digits") as client:
            return await client.draw(2)

    images_drawn, seed = asyncio.run(draw())
    assert np.array_equal(images_drawn, engine.sample(2, seed=seed))


def test_attributes_are_listed(bundle, tmp_path):
    for name in ("one", "two words"):
        shutil.copytree(bundle.path, tmp_path / name)
    bent = Attribute(direction=[0.5] * 8, source="by hand")
    bundles.annotate(Bundle.load(tmp_path / "two words"), attributes={"bent": bent})
    catalog = Catalog(Settings(bundles=str(tmp_path), device="cpu"))
    catalog.load()
    app = RequestMiddleware(create_app(catalog), catalog.settings)
    expected = {"bent": bent.model_dump(mode="json")}

    async def attributes(model: str | None):
        async with AsyncClient("http://test", model=model) as client:
            client._http = httpx.AsyncClient(base_url="http://test", transport=httpx.ASGITransport(app))
            return await client.attributes()

    assert asyncio.run(attributes("two words")) == expected
    assert asyncio.run(attributes(None)) == {}
    with Client("http://test", model="two words") as client:
        client._http = TestClient(app)
        assert client.attributes() == expected
        client.model = None
        assert client.attributes() == {}
        client.model = "unknown"
        with pytest.raises(ServiceError, match="404: there is no model 'unknown'"):
            client.attributes()
    catalog.close()
