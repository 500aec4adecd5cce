"""The cloud as its nodes and users meet it: real HTTPS on loopback, a real database."""
