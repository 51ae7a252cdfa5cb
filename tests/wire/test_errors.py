"""Every error of the contract has a stable code of its own."""

from wire import errors


def _all(base: type[errors.WireError]) -> list[type[errors.WireError]]:
    """Return the contract's own errors; other packages may derive theirs."""
    own = [child for child in base.__subclasses__() if child.__module__ == errors.__name__]
    return [base, *(error for child in own for error in _all(child))]


def test_codes_are_unique_and_stable() -> None:
    """Codes are part of reports; a change here breaks their readers."""
    assert sorted(error.code for error in _all(errors.WireError)) == [
        "bundle_entry",
        "bundle_invalid",
        "digest_mismatch",
        "histogram_mismatch",
        "installation_mixed",
        "manifest_invalid",
        "message_invalid",
        "name_refused",
        "patch_invalid",
        "path_invalid",
        "reference_invalid",
        "settings_invalid",
        "too_large",
        "topic_unknown",
        "wire",
    ]


def test_the_tree_in_the_docstring_names_every_error() -> None:
    """The drawing is the documentation."""
    assert all(error.__name__ in str(errors.__doc__) for error in _all(errors.WireError))
