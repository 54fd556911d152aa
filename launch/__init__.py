"""TorchX components: which hosts a command runs on, never what it does. One file a component.

``host.py`` is what they share.
"""
