"""The pages for the operator, on the same app as the REST API; works without a network beyond this host.

Decides how things look and are said. What is true comes from the services, in process; what an operator may do is
decided there too.
"""
