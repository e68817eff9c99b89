"""Do tasks conflict more than samples of one task do?"""
