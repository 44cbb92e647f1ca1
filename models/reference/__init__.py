"""What golden.py does to a study, step by step: an independent reading of the manifest.

Written with pydicom, numpy, Pillow, scipy, SimpleITK and onnxruntime. It shares nothing with the gateway, so where the two
agree, two readings of the manifest agree. What it does not do it refuses (`manifests.Refused`).
"""
