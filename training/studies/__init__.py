"""Studies: they repeat published figures. Each module with a function `run(study)` is one study.

The figures and tables are numbered as in the talk on FlexAE and MaskAAE that the studies follow ("the talk").
"""
