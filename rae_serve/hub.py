"""Share bundles through the Hugging Face Hub, or a server that speaks its API (the environment variable HF_ENDPOINT).

Needs the extra `hub`. The client finds its token in HF_TOKEN, or where `hf auth login` put it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rae_serve import extras, files, parity
from rae_serve.bundle import CARD, Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, InvalidInput, RaeServeError
from rae_serve.manifest import MANIFEST, read_manifest

with extras.needed("hub"):
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars, logging

# What goes wrong is said once, by our exceptions; the client would also say that it tries again.
disable_progress_bars()
logging.set_verbosity(logging.CRITICAL)


def push(bundle: Bundle, repository: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload a bundle with its model card, and return the address of the commit.

    Args:
        bundle: The bundle.
        repository: `user/name`; it is made if it does not exist. Other files in it stay.
        private: Whether a repository that is made is hidden from others.
        revision: The branch, which is made if it does not exist; None: the main branch.

    Raises:
        InvalidInput: `repository` is no name of a repository.
        RaeServeError: The hub cannot be reached or refuses the upload.
    """
    api = huggingface_hub.HfApi()
    contents = dict(bundle.contents)
    for name in (MANIFEST, CARD):
        with files.named_errors(bundle.path / name, "read"):
            contents[name] = (bundle.path / name).read_bytes()
    with _one_error(api.endpoint, repository, revision):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        # One commit, so that nobody can pull a half of it.
        commit = api.create_commit(
            repository,
            [huggingface_hub.CommitOperationAdd(name, data) for name, data in contents.items()],
            commit_message=f"Bundle {bundle.name}, digest {bundle.manifest.digest[:12]}",
            revision=revision,
        )
        return str(commit.commit_url)


def pull(repository: str, out: Path, *, revision: str | None = None) -> Bundle:
    """Download a bundle, check its files and its graphs, and put it at `out`.

    Args:
        repository: `user/name`.
        out: The folder of the bundle; it must be empty or not exist.
        revision: A branch, tag or commit; None: the main branch.

    Raises:
        BundleError: There is no bundle in the repository, or it is damaged.
        InvalidInput: `repository` is no name of a repository.
        RaeServeError: The hub cannot be reached, or `out` is in use or cannot be written.
    """
    api = huggingface_hub.HfApi()
    with files.new_folder(out, mark=MANIFEST) as folder:
        with _one_error(api.endpoint, repository, revision):
            found = api.model_info(repository, revision=revision)
            names = {file.rfilename for file in found.siblings or ()}
            if MANIFEST not in names:
                raise BundleError(f"{repository} is not a bundle: it has no {MANIFEST}")

            def download(name: str) -> None:
                if name not in names:
                    raise BundleError(f"{repository} is not complete: it has no {name}")
                api.hf_hub_download(repository, name, revision=found.sha, local_dir=folder)

            download(MANIFEST)
            for name in (*read_manifest(folder / MANIFEST).files, *({CARD} & names)):
                download(name)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes about its downloads
        loaded = Bundle.load(folder)
        parity.check(parity.measure(Engine(loaded, device="cpu"), loaded.golden()), loaded.manifest.tolerance)
    return Bundle.load(out)


@contextmanager
def _one_error(endpoint: str, repository: str, revision: str | None) -> Iterator[None]:
    """Turn the exceptions of the client into ours, each with one line that says what to do.

    Args:
        endpoint: The address of the hub.
        repository: The repository, as the user wrote it.
        revision: The revision, as the user wrote it.
    """
    try:
        yield
    except errors.HFValidationError:
        raise InvalidInput("REPOSITORY", f"must be like user/name, not {repository!r}") from None
    except errors.RevisionNotFoundError:
        raise RaeServeError(f"{repository} at {endpoint} has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError:
        hint = "check the name; if it is private, run `hf auth login` or set HF_TOKEN"
        raise RaeServeError(f"there is no repository {repository} at {endpoint} for you: {hint}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; run `hf auth login`, or set HF_TOKEN to a token that may do this" if status in (401, 403) else ""
        raise RaeServeError(f"{endpoint} refused {repository} with status {status}{hint}") from None
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of this machine, such as a full disk
        reason = error.__cause__ or error
        raise RaeServeError(f"{endpoint} does not answer as a hub ({reason}); check the network and HF_ENDPOINT") from None
