"""Does the optimizer matter more than the method?"""
