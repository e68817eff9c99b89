"""Do affinities of tasks say which should be trained together?"""
