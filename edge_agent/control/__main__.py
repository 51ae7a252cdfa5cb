"""``python -m edge_agent.control JSON``: the control process, which ``edge-agent run`` becomes.

It imports no command-line library, uses the byte code that ``scripts/install-agent`` made (``edge_agent.bytecode``),
and imports what it seldom needs on first use (``late``): together 5 MB less private memory.
"""

from edge_agent.control.late import put_off

if __name__ == "__main__":
    put_off()
    from edge_agent.control.process import main

    main()
