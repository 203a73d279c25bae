"""What people look at: stored results and state files as pages, tables and pictures."""

from rwalk.report.collecting import collect
from rwalk.report.page import Page, render, write_page
from rwalk.report.study import Group, Run, Study
from rwalk.report.study_page import figures_of, study_page

__all__ = ["Group", "Page", "Run", "Study", "collect", "figures_of", "render", "study_page", "write_page"]
