"""Is a network that is merged as good as one that is trained jointly?"""
