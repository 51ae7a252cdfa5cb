"""What devices measured, prepared for a person to look at: figures over time, windows beside a reference, a heat map.

Nothing here decides: alarms are of ``server.drift``.
"""
