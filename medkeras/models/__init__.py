"""Model functions: raw pixels in, logits out, flat and uncompiled."""
