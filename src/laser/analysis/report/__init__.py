"""Self-contained pages about a run or a suite: which reward model was useful for which prompts, and how sure that is.

`write_report` reads a directory and writes a page and its pictures. `run` and `suite` say what is on a page, `words`
and `charts` what it says and shows, `render` and `figure` how that is written as HTML, SVG and PNG.
"""

from laser.analysis.report.write import Written, write_report

__all__ = ["Written", "write_report"]
