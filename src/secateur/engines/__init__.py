"""Engines run the same work in one process or in many: the only place that knows processes.

Import only what is needed: `import secateur` imports none of this.
"""
