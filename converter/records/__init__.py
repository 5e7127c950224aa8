"""What earlier conversions on this machine found out, kept so that it need not be done again.

A *layer record* is the tar of a layer without its files' contents.  An *image record* says
which chunks the contents of an image's layers became.  Both follow from verified bytes, are
kept for who runs the converter alone, and may be lost at any time (docs/decisions/0021-records.md).
"""
