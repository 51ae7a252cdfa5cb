"""The operator's pages, in the same application as the REST API; they load nothing from other hosts.

Decides appearance and wording. Does not decide facts nor what an operator may do: the services do, in process.
"""
