"""The machinery behind `arke.Mesh` and `arke.Service`. Not part of the public API."""
