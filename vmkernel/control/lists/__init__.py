r"""The query language of lists: it reads filters, selectors, sorting and projections, and carries
them out. It works on records in memory alone and must not touch any service.

    condition = value *("," value)      any of them; `*` is any text, an empty value is none;
                                        `\` before `,`, `*` and `\` makes them characters
    selector  = KEY "=" VALUE | KEY "!=" VALUE | KEY | "!" KEY
    order     = ["-"] COLUMN *("," ["-"] COLUMN)
    fields    = PATH *("," PATH)
"""

from vmkernel.control.lists.answer import *
from vmkernel.control.lists.encoded import *
from vmkernel.control.lists.language import *
