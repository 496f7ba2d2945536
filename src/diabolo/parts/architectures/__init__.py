"""Architectures: what maps the input to the code and the code back."""

from diabolo.parts.architectures.base import Architecture, Level, Network
from diabolo.parts.architectures.conv import Conv
from diabolo.parts.architectures.dense import Dense

__all__ = ["Architecture", "Conv", "Dense", "Level", "Network"]
