"""The release decision: may this model replace the one that serves?"""
