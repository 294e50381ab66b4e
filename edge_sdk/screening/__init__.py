"""Screening of recordings: one, many on several cores, or an archive on Ray, with results that resume."""
