"""Impersonation: a request whose headers name another user is made as that user, with the API server's rules.

The right to do so is the verb `impersonate` on `users` (or `serviceaccounts`) by name, on `groups` for each group, and
on `uids` and `userextras/KEY` of the group authentication.k8s.io.
"""

from __future__ import annotations

from urllib.parse import unquote

from multidict import CIMultiDictProxy

from wasmlet.controlplane.access.authorizer import Attributes, Authorizer
from wasmlet.controlplane.access.users import ANONYMOUS, User, user
from wasmlet.controlplane.storage.status import ApiError

_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
_EXTENDED = "authentication.k8s.io"


def impersonated(authorizer: Authorizer, who: User, headers: CIMultiDictProxy[str]) -> User:
    """The user as whom a request is made: the one that its `Impersonate-` headers name, or else `who`.

    Raises:
        ApiError: 403, `who` may not impersonate one of those named; 500, a group is named and no user.
    """
    name, uid = headers.get("Impersonate-User", ""), headers.get("Impersonate-Uid", "")
    groups = headers.getall("Impersonate-Group", [])
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            key = unquote(header[len(_EXTRA) :]).lower()
            extra[key] = (*extra.get(key, ()), value)
    if not name:
        if groups or uid or extra:
            raise ApiError(
                500, "InternalError", "Internal error occurred: requested groups without impersonating a user"
            )
        return who
    account = name.removeprefix(_ACCOUNT).split(":") if name.startswith(_ACCOUNT) else []
    wanted = [Attributes("impersonate", resource="groups", name=group) for group in groups]
    if len(account) == 2:
        namespace, short = account
        wanted.insert(0, Attributes("impersonate", resource="serviceaccounts", namespace=namespace, name=short))
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    else:
        wanted.insert(0, Attributes("impersonate", resource="users", name=name))
    wanted += [Attributes("impersonate", _EXTENDED, "uids", name=uid)] if uid else []
    wanted += [
        Attributes("impersonate", _EXTENDED, "userextras", key, name=value)
        for key, values in extra.items()
        for value in values
    ]
    for one in wanted:
        authorizer.check(who, one)
    return ANONYMOUS if name == ANONYMOUS.name else user(name, groups, uid=uid, extra=extra)
