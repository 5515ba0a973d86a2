"""Upload a release to the Hugging Face hub, as a data set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import repository_problem
from dsmi_zoo._util.text import shortened
from dsmi_zoo.pipeline.store.release import EARLIER, RELEASE, is_release, read_release

from ..progress import SILENT, Display

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES_OF_A_NEW_REPOSITORY = {".gitattributes", "README.md"}


def push(folder: Path, repository: str, public: bool = False, display: Display = SILENT) -> str:
    """Upload a published folder, remove files that only an earlier release had, and return the data set's address.

    Parameters
    ----------
    public
        Whether a repository that is created for it is visible to all.

    Raises
    ------
    InputError
        For an invalid name, a repository that holds something else or a release that the folder does not know, or when
        the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import disable_progress_bars

    # Of requests or httpx, depending on the client's version.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    refuse_wrong_name(repository)
    if not display.has_bars:
        disable_progress_bars()
    release, api = read_release(folder), HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        _refuse_others_content(api, repository, folder)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            ignore_patterns=[".*", "**/.*"],
            delete_patterns=["*"],
            commit_message=f"Release {release.id}",
        )
    except LocalTokenNotFoundError:
        raise InputError(
            "the hub needs a token that may write: set HF_TOKEN, or `hf auth login`"
        ) from None
    except OfflineModeIsEnabled:
        raise InputError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it") from None
    except http_error as error:
        reason = shortened(str(error), 200)
        if not isinstance(error, HfHubHTTPError):
            raise InputError(
                f"{api.endpoint} cannot be reached ({reason}); try again later"
            ) from None
        is_forbidden = error.response.status_code in (401, 403)
        hint = ": set HF_TOKEN to a token that may write" if is_forbidden else ""
        raise InputError(f"the hub refused {repository} ({reason}){hint}") from None
    return f"{api.endpoint}/datasets/{repository}"


def refuse_wrong_name(repository: str) -> None:
    """Raise InputError for an invalid name of a repository."""
    problem = repository_problem(repository)
    if problem:
        raise InputError(f"--push {repository}: {problem}")


def _refuse_others_content(api: "HfApi", repository: str, folder: Path) -> None:
    """Raise InputError when the upload would remove files that are not of an earlier state of this folder."""
    there = set(api.list_repo_files(repository, repo_type="dataset"))
    if RELEASE not in there:
        if there - FILES_OF_A_NEW_REPOSITORY:
            raise InputError(
                f"{repository} holds something else than a release; choose a new repository"
            )
        return
    path = api.hf_hub_download(repository, RELEASE, repo_type="dataset")
    theirs = json.loads(Path(path).read_text(encoding="utf-8")).get("id")
    known = {
        read_release(folder).id,
        *(path.name for path in (folder / EARLIER).glob("*") if is_release(path)),
    }
    if theirs not in known:
        raise InputError(
            f"{repository} holds release {theirs}, which {folder} does not know; "
            f"`hf download {repository} --repo-type dataset --local-dir DIR`, then publish into DIR"
        )
