"""The report of an examination: one offline page, or the same content as a PDF."""
