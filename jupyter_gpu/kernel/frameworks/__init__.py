"""What jupyter_gpu knows of each framework: one file per framework, named like the module that it watches.

A new framework is one new file with a subclass of `framework.Framework` under the name `FRAMEWORK`.
"""
