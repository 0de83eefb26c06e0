"""What a user's own images are, found out without decoding any of them and without torch."""

from mln_lightning.listing.classes import Classes
from mln_lightning.listing.folder import list_folder
from mln_lightning.listing.parts import Labels, Listing, Part
from mln_lightning.listing.table import list_table

__all__ = [
    "Classes",
    "Labels",
    "Listing",
    "Part",
    "list_folder",
    "list_table",
]
