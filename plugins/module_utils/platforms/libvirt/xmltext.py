# Copyright: (c) 2026, Sendense contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading XML that libvirt hands out. It is escaped by libvirt, but its content is chosen by strangers."""

from __future__ import annotations

from xml.etree import ElementTree

from ...errors import InvalidInputError

#: Tags, policy and restore marks live in ``<metadata>`` under this namespace.
NAMESPACE = "urn:sendense:machine:1"
PREFIX = "sendense"


def parse(text: str) -> ElementTree.Element:
    """The tree. InvalidInputError for a document type (entities!) and for what is no XML."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InvalidInputError("Refused XML with a document type: libvirt never sends one, and entities are an attack.")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as exc:
        raise InvalidInputError(f"Cannot read the XML of the platform: {exc}.") from exc


def qualified(tag: str) -> str:
    """The tag in our namespace, as ElementTree writes it."""
    return f"{{{NAMESPACE}}}{tag}"
