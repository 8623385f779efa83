"""Precision as a property of the graph: half precision and int8 written into it, and what stays in fp32."""
