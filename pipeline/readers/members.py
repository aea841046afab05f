"""A product's members, found by their names, and its XML."""

from xml.etree.ElementTree import Element

from pipeline.readers import metadata
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


def xml_root(product: Product, member: Member) -> Element:
    """Return the root element of an XML file without entities.

    Raises:
        SceneError: It is no such XML.
    """
    return metadata.parse_xml(product.read(member), where=product.where(member))
