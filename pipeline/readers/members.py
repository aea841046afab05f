"""A product's members, found by their names, and its XML."""

from typing import Any

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from pipeline.readers.product import Member, Product
from storage.schema import SceneError

FETCH_AGAIN = "fetch the whole product again"


def only(product: Product, pattern: str, what: str) -> Member:
    """Return the one member whose base name matches.

    Raises:
        SceneError: There is none, or more than one.
    """
    found = product.find(pattern)
    if len(found) != 1:
        raise SceneError(
            product.path, expected=f"{what} file, one",
            got=f"{[m.basename for m in found] or 'none'}", todo=FETCH_AGAIN,
        )  # fmt: skip
    return found[0]


def xml_root(product: Product, member: Member) -> Any:
    """Return the root element of an XML file without entities.

    Raises:
        SceneError: It is no such XML.
    """
    try:
        return ElementTree.fromstring(product.read(member))
    except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise SceneError(
            product.where(member), expected="plain XML", got=f"{error}", todo=FETCH_AGAIN
        ) from error
