"""A page in the browser that shows what plans do: their noise paths, and samples of two of them as they come.

`page` alone imports gradio.
"""
