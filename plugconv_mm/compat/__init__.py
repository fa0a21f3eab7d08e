"""What PlugConv-MM needs to run beside other people's packages: mmcv without its compiled operators."""
