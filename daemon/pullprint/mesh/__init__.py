"""The nodes of one site among themselves: who the others are, how they are reached, and what goes to and fro.

Carries sealed jobs, sealed key parts and votes, and opens none of them; what they mean is `node`'s matter.
"""
