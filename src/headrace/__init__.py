"""headrace: an event-driven data mesh built on change streams.

The folders of the architecture are its sub-packages; imports point one way:
``schemas <- streams <- {producers, sinks} <- governance <- selfserve``.
"""
