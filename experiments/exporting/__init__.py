"""Prepared data in the layouts of other people's libraries; one module a layout, `experiments.export` is the command."""
