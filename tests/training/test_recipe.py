from __future__ import annotations

import pytest

from rae_serve.errors import InvalidInput
from training import keys
from training import recipe as recipes


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_loads(name):
    recipe = recipes.load(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.licence != "unspecified" or recipe.data == "folder"


def test_overrides_are_toml_values_and_bare_words():
    recipe = recipes.load("flexae-digits", ["steps=7", "data=mnist", "penalty=1", "noise_dim = 9"])
    assert (recipe.steps, recipe.data) == (7, "mnist")
    assert (recipe.parameters["penalty"], recipe.parameters["noise_dim"]) == (1.0, 9)


def test_every_parameter_is_in_the_recipe():
    assert recipes.load("flexae-mnist").parameters["critic_steps"] == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("latent_din=3", "latent_din: is no key of a flexae recipe; did you mean latent_dim"),
        ("latent_dim=0", "latent_dim: .*greater than 0, not 0"),
        ("latent_dim=2.5", "latent_dim: .*integer.*not 2.5"),
        ('latent_dim="3"', "latent_dim: .*integer.*not '3'"),
        ("critic_lr=fast", "critic_lr: .*number.*not 'fast'"),
        ("steps=-1", "steps: .*not -1"),
        ("batch_size=1", "batch_size: .*not 1"),
        ("model=flexea", "model: there is no 'flexea'; did you mean flexae"),
        ("crop=middle", "crop: .*not 'middle'"),
        ("parameters={}", "parameters: is no key"),
        ("seed=9007199254740992", "seed: .*not 9007199254740992"),
        ("steps", "--set: wants key=value, not 'steps'"),
    ],
)
def test_what_does_not_fit_is_named(override, message):
    with pytest.raises(InvalidInput, match=message):
        recipes.load("flexae-digits", [override])


def test_files_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('model = "flexae"\nsteps = 5\nlatent_dim = 3\n')
    recipe = recipes.load(str(path))
    assert (recipe.name, recipe.steps, recipe.parameters["latent_dim"]) == ("mine", 5, 3)
    path.write_text("model = \n")
    with pytest.raises(InvalidInput, match=r"mine\.toml cannot be read"):
        recipes.load(str(path))
    path.write_text('model = "flexae"\n')
    with pytest.raises(InvalidInput, match="steps: field required"):
        recipes.load(str(path))
    path.write_text("steps = 5\n")
    with pytest.raises(InvalidInput, match="model: "):
        recipes.load(str(path))


def test_a_recipe_like_another(tmp_path):
    whole, twin = recipes.load("maskaae-digits"), recipes.load("aae-digits")
    mask = {"variance_penalty": 200.0, "mask_reconstruction": 1000.0, "polarisation_cap": 2048.0, "mask_lr": 2e-3}
    assert whole.parameters == twin.parameters | mask
    same = {"name": "", "description": "", "model": "", "parameters": {}}
    assert twin.model_copy(update=same) == whole.model_copy(update=same)
    path = tmp_path / "mine.toml"
    path.write_text('like = "maskaae-digits"\nsteps = 5\n')
    assert (recipes.load(str(path)).steps, recipes.load(str(path)).parameters["mask_lr"]) == (5, 2e-3)
    path.write_text('like = "aae-digit"\n')
    with pytest.raises(InvalidInput, match="like: there is no 'aae-digit'; did you mean aae-digits"):
        recipes.load(str(path))


@pytest.mark.parametrize("model", keys.names())
def test_every_key_of_every_model_is_explained(model):
    recipe = recipes.check({"name": "x", "model": model, "steps": 1})
    explained = recipes.explain(recipe)
    assert [key.name for key in explained] == list(recipes.flat(recipe))
    assert [key.name for key in explained if not key.meaning.endswith(".")] == []


def test_a_key_is_explained_with_its_value():
    explained = {key.name: key for key in recipes.explain(recipes.load("flexae-digits", ["critic_steps=3"]))}
    assert explained["critic_steps"].value == 3
    assert "Critic updates for each auto-encoder update" in explained["critic_steps"].meaning
    assert "held out" in explained["validation"].meaning
