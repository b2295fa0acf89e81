"""The errors that verbs raise; each message is a sentence for the person who can act on it."""


class RegistryError(Exception):
    """Root of the family; `server.app` maps each class to one HTTP status.

    The sentence and what is filled into its `%(name)s` are kept apart, so that a page can say it in
    the reader's language. Without values the sentence stands as it is.
    """

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message % values if values else message)
        self.message = message
        self.values = values


class NotFound(RegistryError):
    """Nothing of that name exists. The message lists the names that do, where they are few."""


class Conflict(RegistryError):
    """The request contradicts what is already recorded."""


class Invalid(RegistryError):
    """The input cannot be accepted as it is."""


class Refused(RegistryError):
    """The input is fine but this person may not do this, or not now."""


class NoRoom(RegistryError):
    """The input is fine but there is no room to keep it: a quota is used up, or the disk is full."""


def name_list(names: list[str], limit: int = 12) -> str:
    """The names that exist, for the end of a NotFound message; the same in every language."""
    if not names:
        return "–"
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … (+{len(names) - limit})"
