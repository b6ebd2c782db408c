"""The conformance kit: rules that every encoder, decoder and backend must keep, ours and third parties'.

`find.parts` turns a name into parts, `subject` and `backend_subject` hold one of them under test, `judge` runs the
rules of `table` on it, `report` writes what came out. `segdeploy plugins check` and `pytest --segdeploy-plugin` are
two doors to the same rules.
"""
