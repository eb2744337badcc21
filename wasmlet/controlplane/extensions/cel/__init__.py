"""Rules of schemas in the Common Expression Language: read, checked against the schema, and worked out within bounds.

The language is cel-python's (`celpy`); `engine` imports it, and nothing imports `engine` before the first rule is read.
"""
