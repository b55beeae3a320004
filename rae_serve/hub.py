"""Share bundles through the Hugging Face Hub, or a server that speaks its API (the environment variable HF_ENDPOINT).

Needs the extra `hub`. huggingface_hub finds the token itself: in HF_TOKEN, or where `hf auth login` put it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rae_serve import bundle as bundles
from rae_serve import extras, files
from rae_serve.bundle import CARD, Bundle
from rae_serve.errors import BundleError, InvalidInput, RaeServeError
from rae_serve.manifest import MANIFEST, read_manifest

with extras.needed("hub"):
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

# Each error is reported once, by our exceptions. huggingface_hub would also log every attempt.
disable_progress_bars()
logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


def push(bundle: Bundle, repository: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload a bundle with its model card as one commit, and return the address of the commit.

    Args:
        bundle: The bundle.
        repository: OWNER/NAME; it is made if it does not exist. Other files in it stay.
        private: Whether to hide a new repository from others.
        revision: The branch, which is made if it does not exist; None: the main branch.

    Raises:
        InvalidInput: `repository` is not the name of a repository.
        RaeServeError: There is no token, or the hub cannot be reached or refuses the upload.
    """
    api = huggingface_hub.HfApi()
    if huggingface_hub.get_token() is None:
        raise RaeServeError(f"{api.endpoint} needs a token to push: run `hf auth login`, or set HF_TOKEN")
    contents = dict(bundle.contents)
    for name in (MANIFEST, CARD):
        with files.named_errors(bundle.path / name, "read"):
            contents[name] = (bundle.path / name).read_bytes()
    with _one_error(api.endpoint, repository, revision):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(
            repository,
            [huggingface_hub.CommitOperationAdd(name, data) for name, data in contents.items()],
            commit_message=f"Bundle {bundle.name}, digest {bundle.manifest.digest[:12]}",
            revision=revision,
        )
        return str(commit.commit_url)


def pull(repository: str, out: Path, *, revision: str | None = None, overwrite: bool = False) -> Bundle:
    """Download a bundle, check its files against its manifest, and put it at `out`.

    Args:
        repository: OWNER/NAME.
        out: The bundle's folder; it appears whole or not at all.
        revision: A branch, tag or commit; None: the main branch.
        overwrite: Whether to replace a bundle that is at `out` already.

    Raises:
        BundleError: There is no bundle in the repository, or it is damaged.
        InvalidInput: `repository` is not the name of a repository.
        RaeServeError: The hub cannot be reached, or `out` is in use or cannot be written.
    """
    api = huggingface_hub.HfApi()
    bundles.check_new(out, overwrite=overwrite)
    used: files.Used = "swap" if overwrite else "refuse"
    with (
        files.new_folder(out, mark=MANIFEST, used=used) as folder,
        _one_error(api.endpoint, repository, revision),
    ):
        found = api.model_info(repository, revision=revision)
        names = {file.rfilename for file in found.siblings or () if "/" not in file.rfilename}
        if MANIFEST not in names:
            raise BundleError(f"{repository} is not a bundle: it has no {MANIFEST}")

        def download(name: str) -> None:
            if name not in names:
                raise BundleError(f"{repository} is not complete: it has no {name}")
            api.hf_hub_download(repository, name, revision=found.sha, local_dir=folder)

        try:
            download(MANIFEST)
            for name in (*read_manifest(folder / MANIFEST).files, *({CARD} & names)):
                download(name)
            Bundle.load(folder)
        except BundleError as error:
            raise BundleError(str(error).replace(str(folder), f"{api.endpoint}/{repository}")) from None
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's notes about its downloads
    return Bundle.load(out)


@contextmanager
def _one_error(endpoint: str, repository: str, revision: str | None) -> Iterator[None]:
    """Turn the exceptions of huggingface_hub into ours, each with one line that says what to do.

    Args:
        endpoint: The address of the hub.
        repository: The repository, as the user wrote it.
        revision: The revision, as the user wrote it.
    """
    try:
        if repository.count("/") != 1:
            raise errors.HFValidationError
        yield
    except errors.HFValidationError:
        raise InvalidInput("REPOSITORY", f"must be OWNER/NAME, not {repository!r}") from None
    except errors.RevisionNotFoundError:
        raise RaeServeError(f"{repository} at {endpoint} has no revision {revision!r}") from None
    except errors.GatedRepoError:
        raise RaeServeError(f"ask for access at {endpoint}/{repository}, then run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        hint = "check the name; if it is private, run `hf auth login` or set HF_TOKEN"
        raise RaeServeError(f"there is no repository {repository} at {endpoint} for you: {hint}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; run `hf auth login`, or set HF_TOKEN to a token that may do this" if status in (401, 403) else ""
        raise RaeServeError(f"{endpoint} refused {repository} with status {status}{hint}") from None
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of this machine, such as a full disk
        # No connection, an answer that is not the hub's, metadata that the hub refuses (both ValueError), or a broken
        # transfer (RuntimeError, of hf-xet).
        reason = error.__cause__ or error
        raise RaeServeError(f"{endpoint} failed ({reason}); check the network and HF_ENDPOINT") from None
