"""Reviewing what an agent did while it stands still: a diff that can be trusted, and a verdict.

Nothing that a guest says about its work is evidence. What is reviewed are objects that we hold and
hash ourselves, in a quarantine repository of ours, against the base that we recorded at spawn.
"""
