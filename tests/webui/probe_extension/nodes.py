"""Another extension's module of the same name as a folder of FewStep's."""

OWNER = "probe"
