"""Evidence for people and machines: one `result.json`, one self-contained HTML page, one table.

A `Result` is the value that all of them show; every figure in it was counted or measured.
"""
