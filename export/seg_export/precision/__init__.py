"""Precision as a property of the graph: half precision written into it, and what stays in fp32."""
