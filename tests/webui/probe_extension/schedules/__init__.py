"""Another extension's package of the same name as one of FewStep's."""

OWNER = "probe"
