"""The Iris codec: programs written for Iris attach as they are, and meet native ones.

Version 1.0-draft2 of the relay protocol. What such a program says becomes the operations of the
native protocol, and what it is to hear is made of them; beyond this package nobody knows of it.
"""
