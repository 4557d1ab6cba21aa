"""Bytes in and out: pictures decoded with limits, files written whole or not at all."""
