"""Medical-image classification experiments whose numbers survive an audit."""

__version__ = "0.1.0"
