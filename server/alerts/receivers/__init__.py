"""How a notice reaches a receiver: one file for each kind of route.

A receiver accepts a notice, or raises ``DeliveryError``. It is asked in a thread of its own, so it may take as long as
its timeouts allow. It reads its secrets when it sends: a file that was replaced holds from then on.
"""
