"""Step ``clean``: mends what exporters write, before anything reads or quantizes an ONNX file.

``mending`` has the table of mends and compares each with the file before it; a mend is a function of its own file.
``given`` is what is known beside the file; ``onnx_graph`` has what other rooms do with a graph, too. This package
imports no other room of the compressor.
"""
