"""The Common Expression Language (CEL) in schemas: expressions are parsed, checked against the schema, and evaluated.

Evaluation is bounded in steps. The package cel-python (`celpy`) implements the language; `engine` imports it, and
nothing imports `engine` before the first rule is read.
"""
