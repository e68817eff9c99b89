"""Are the features of multi-task networks more robust to corrupted images?"""
