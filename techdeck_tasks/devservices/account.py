"""The account PostgreSQL runs under when the owner is root.

PostgreSQL refuses to run as root, which is common in containers. It then runs as the unprivileged
account below, without creating users and without opening anybody's folders: permissions of parent
folders stay as they are. The data folder is entered by root before the account is changed, and is
called `/proc/self/cwd` from then on, so its parents need not be open to the account.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from techdeck_tasks.devservices.errors import DevServiceError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "nobody"
_CURRENT_FOLDER = "/proc/self/cwd"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A user and a group by number."""

    uid: int
    gid: int


def service_account(cluster: Path) -> ServiceAccount | None:
    """Return the account for the data in `cluster` (which may not exist yet); None: the owner's own.

    Raises:
        DevServiceError: the owner is root and the system has no account to change to.
    """
    if os.geteuid() != 0:
        return None
    if not sys.platform.startswith("linux"):
        raise DevServiceError("PostgreSQL: it does not run as root; start it as an ordinary user")
    if cluster.exists():
        owner = cluster.stat()
        if owner.st_uid != 0:
            return ServiceAccount(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(_NAME)
    except KeyError:
        raise DevServiceError(
            f"PostgreSQL: it does not run as root and there is no account {_NAME!r} to change to; "
            "create that account, or start as an ordinary user"
        ) from None
    return ServiceAccount(entry.pw_uid, entry.pw_gid)


def data_argument(cluster: Path, account: ServiceAccount | None) -> str:
    """Return what PostgreSQL calls its data folder, given that it is started inside."""
    return str(cluster) if account is None else _CURRENT_FOLDER


def can_run(program: Path) -> bool:
    """Tell whether an unprivileged account may run the program: not below root's home, for example."""
    everybody = stat.S_IROTH | stat.S_IXOTH
    folders = {*program.parents, *program.resolve().parents}
    return program.stat().st_mode & everybody == everybody and all(
        folder.stat().st_mode & stat.S_IXOTH for folder in folders
    )


def copy_for(account: ServiceAccount, program: Path, folder: Path) -> Path:
    """Copy a wheel's `<package>/<installation>/bin/<program>` and its libraries into `folder`.

    Args:
        account: will own `folder` and the copy.
        program: the original.
        folder: empty, and in a place that every account can enter.

    Returns:
        The program in the copy.
    """
    installation, package = program.parents[1], program.parents[2]
    copy = folder / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    # Where a wheel's programs look for the libraries that were bundled with it: beside the package.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return copy / program.parent.name / program.name
